//! Token endpoints as data: four APIs that nobody coded for, and what a document may say.

#![cfg(all(feature = "config", feature = "client", feature = "testkit"))]
#![allow(clippy::expect_used, clippy::unwrap_used)]

#[path = "endpoints/accidents.rs"]
mod accidents;
#[path = "endpoints/answers.rs"]
mod answers;
#[path = "endpoints/double.rs"]
mod double;
#[path = "endpoints/github.rs"]
mod github;
#[path = "endpoints/requests.rs"]
mod requests;
#[path = "endpoints/vault.rs"]
mod vault;
#[path = "endpoints/wechat_feishu.rs"]
mod wechat_feishu;
