//! `RedisStore` on a real `redis-server`, which `tests/run` installs and names. Without it these tests say that they
//! were left out, and pass.

#![cfg(all(feature = "redis", feature = "testkit"))]
#![allow(clippy::expect_used, clippy::unwrap_used)]

#[path = "support/left_out.rs"]
mod left_out;
#[path = "redis/server.rs"]
mod server;
#[path = "redis/specimen.rs"]
mod specimen;

#[path = "redis/keeping.rs"]
mod keeping;
#[path = "redis/news.rs"]
mod news;
#[path = "redis/outages.rs"]
mod outages;
#[path = "redis/refusals.rs"]
mod refusals;
#[path = "redis/tls.rs"]
mod tls;
#[path = "redis/users.rs"]
mod users;
