//! A client of `/test.Echo`, as tonic's generator writes them, but for messages of raw bytes.

use bytes::{Buf, BufMut, Bytes};
use http::uri::PathAndQuery;
use tonic::body::Body;
use tonic::client::{Grpc, GrpcService};
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::codegen::{Body as HttpBody, StdError};
use tonic::metadata::MetadataValue;
use tonic::{IntoRequest, IntoStreamingRequest, Request, Response, Status, Streaming};

#[derive(Debug, Clone)]
pub(crate) struct EchoClient<T> {
    inner: Grpc<T>,
}

impl<T> EchoClient<T>
where
    T: GrpcService<Body>,
    T::Error: Into<StdError>,
    T::ResponseBody: HttpBody<Data = Bytes> + Send + 'static,
    <T::ResponseBody as HttpBody>::Error: Into<StdError> + Send,
{
    pub(crate) fn new(inner: T) -> Self {
        Self {
            inner: Grpc::new(inner),
        }
    }

    pub(crate) async fn unary(&mut self, request: impl IntoRequest<Bytes>) -> Result<Response<Bytes>, Status> {
        self.ready().await?;
        let path = PathAndQuery::from_static("/test.Echo/Unary");
        self.inner.unary(request.into_request(), path, BytesCodec).await
    }

    pub(crate) async fn client_stream(
        &mut self,
        request: impl IntoStreamingRequest<Message = Bytes>,
    ) -> Result<Response<Bytes>, Status> {
        self.ready().await?;
        let path = PathAndQuery::from_static("/test.Echo/ClientStream");
        let request = request.into_streaming_request();
        self.inner.client_streaming(request, path, BytesCodec).await
    }

    pub(crate) async fn server_stream(
        &mut self,
        request: impl IntoRequest<Bytes>,
    ) -> Result<Response<Streaming<Bytes>>, Status> {
        self.ready().await?;
        let path = PathAndQuery::from_static("/test.Echo/ServerStream");
        self.inner
            .server_streaming(request.into_request(), path, BytesCodec)
            .await
    }

    pub(crate) async fn bidi(
        &mut self,
        request: impl IntoStreamingRequest<Message = Bytes>,
    ) -> Result<Response<Streaming<Bytes>>, Status> {
        self.ready().await?;
        let path = PathAndQuery::from_static("/test.Echo/Bidi");
        let request = request.into_streaming_request();
        self.inner.streaming(request, path, BytesCodec).await
    }

    async fn ready(&mut self) -> Result<(), Status> {
        let ready = self.inner.ready().await;
        ready.map_err(|error| Status::unknown(format!("Service was not ready: {}", error.into())))
    }
}

/// The bytes as they are.
#[derive(Debug, Clone, Copy, Default)]
struct BytesCodec;

impl Codec for BytesCodec {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for BytesCodec {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, message: Bytes, to: &mut EncodeBuf<'_>) -> Result<(), Status> {
        to.put(message);
        Ok(())
    }
}

impl Decoder for BytesCodec {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(from.copy_to_bytes(from.remaining())))
    }
}

/// A request with a name, of which the server counts the deliveries. It looks at the token `when`: see
/// `tests/grpc/server.py`.
pub(crate) fn request<T>(message: T, name: &str, when: &'static str) -> Request<T> {
    let mut request = Request::new(message);
    let metadata = request.metadata_mut();
    metadata.insert("x-request-id", name.parse().expect("ASCII"));
    metadata.insert("x-judge", MetadataValue::from_static(when));
    request
}
