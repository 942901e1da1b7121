use tower::{Service, service_fn};
use tower_token::{BoxError, Origins, TokenLayer, Tokens};

struct Upload;

fn main() {}

fn client(tokens: &Tokens, origins: Origins) -> impl Service<http::Request<Upload>> {
    let inner = service_fn(|_: http::Request<Upload>| async { Ok::<_, BoxError>(http::Response::new(())) });
    tower::Layer::layer(&TokenLayer::new(tokens, origins), inner)
}
