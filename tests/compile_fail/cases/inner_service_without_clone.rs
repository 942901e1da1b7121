use tower::ServiceBuilder;
use tower::util::BoxService;
use tower_token::{BoxError, Origins, TokenLayer, Tokens};

type Inner = BoxService<http::Request<String>, http::Response<String>, BoxError>;

fn main() {}

fn client(tokens: &Tokens, origins: Origins, inner: Inner) {
    let _client = ServiceBuilder::new()
        .layer(TokenLayer::new(tokens, origins))
        .service(inner);
}
