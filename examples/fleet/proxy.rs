//! A network between a fleet and its store that can go dark.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// Nothing passes while it is dark, and no connection ends by it. What was sent meanwhile arrives afterwards, as TCP
/// sends it again.
pub(crate) struct Proxy {
    pub(crate) addr: SocketAddr,
    dark: watch::Sender<bool>,
}

impl Proxy {
    pub(crate) async fn to(port: u16) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let addr = listener.local_addr()?;
        let (dark, is_dark) = watch::channel(false);
        tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                tokio::spawn(connect(near, port, is_dark.clone()));
            }
        });
        Ok(Self { addr, dark })
    }

    pub(crate) fn dark(&self, dark: bool) {
        self.dark.send_replace(dark);
    }
}

async fn connect(near: TcpStream, port: u16, mut dark: watch::Receiver<bool>) -> io::Result<()> {
    light(&mut dark).await;
    let far = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?;
    near.set_nodelay(true)?;
    far.set_nodelay(true)?;
    let ((near_in, near_out), (far_in, far_out)) = (near.into_split(), far.into_split());
    let (there, back) = (pump(near_in, far_out, dark.clone()), pump(far_in, near_out, dark));
    tokio::try_join!(there, back).map(|_| ())
}

async fn pump(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut dark: watch::Receiver<bool>) -> io::Result<()> {
    let mut chunk = vec![0; 16 * 1024];
    loop {
        let read = from.read(&mut chunk).await?;
        light(&mut dark).await;
        if read == 0 {
            return to.shutdown().await;
        }
        to.write_all(&chunk[..read]).await?;
    }
}

async fn light(dark: &mut watch::Receiver<bool>) {
    // Without a sender there is nobody to make it dark.
    let _ = dark.wait_for(|dark| !dark).await;
}
