//! How to: one page for each task, with programs that compile as they stand.
//!
//! | to | read |
//! |---|---|
//! | put a token on the requests of your client | [`get_a_token`] |
//! | use one token in many clients, threads and SDKs | [`share_it`] |
//! | see what your service does when tokens expire, are revoked, or cannot be had | [`test_your_service`] |
//! | know in production that all is well, and be told when it is not | [`watch_it_in_production`] |
//! | get tokens from an API that nobody wrote a strategy for | [`write_a_provider`] |
//! | say how your server refuses a token, where that is not a 401 | [`write_a_classifier`] |
//! | use a client that no page names | [`add_a_client`] |
//! | put all this into a library of your own | Embedding |
//!
//! Each page can be read alone. The README says [what happens when](crate#what-happens-when), and in which
//! [order layers](crate#order-of-layers) stand.
//!
//! There is no code in here. The pages are made by feature `full`, as docs.rs has it, because they use all of it.

#[doc = include_str!("guide/get_a_token.md")]
pub mod get_a_token {}

#[doc = include_str!("guide/share_it.md")]
pub mod share_it {}

#[doc = include_str!("guide/test_your_service.md")]
pub mod test_your_service {}

#[doc = include_str!("guide/watch_it_in_production.md")]
pub mod watch_it_in_production {}

#[doc = include_str!("guide/write_a_provider.md")]
pub mod write_a_provider {}

#[doc = include_str!("guide/write_a_classifier.md")]
pub mod write_a_classifier {}

#[doc = include_str!("guide/add_a_client.md")]
pub mod add_a_client {}
