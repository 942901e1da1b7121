//! How to: one page for each task, with programs that compile as they stand.
//!
//! | to | read |
//! |---|---|
//! | put a token on the requests of your client | [`get_a_token`] |
//! | use one token in many clients, threads and SDKs | [`share_it`] |
//! | keep it where it outlives the process, and share it with others | [`outlive_the_process`] |
//! | see what your service does when tokens expire, are revoked, or cannot be had | [`test_your_service`] |
//! | know in production that all is well, and be told when it is not | [`watch_it_in_production`] |
//! | get tokens from an API that nobody wrote a strategy for | [`write_a_provider`] |
//! | say how your server refuses a token, where that is not a 401 | [`write_a_classifier`] |
//! | use a client that no page names | [`add_a_client`] |
//! | put all this into a library of your own | [`embedding`] |
//!
//! Each page can be read alone. The README says [what happens when](crate#what-happens-when), and in which
//! [order layers](crate#order-of-layers) stand.
//!
//! There is no code in here. The pages are made with feature `full`, as docs.rs has it, because they use all of it.

/// One page. Without the features that it uses and links to there is only its name.
macro_rules! page {
    ($name:ident, $text:literal) => {
        #[cfg_attr(feature = "full", doc = include_str!($text))]
        #[cfg_attr(
            not(feature = "full"),
            doc = "A page of the guide; it is made with feature `full`."
        )]
        pub mod $name {}
    };
}

page!(get_a_token, "guide/get_a_token.md");
page!(share_it, "guide/share_it.md");
page!(outlive_the_process, "guide/outlive_the_process.md");
page!(test_your_service, "guide/test_your_service.md");
page!(watch_it_in_production, "guide/watch_it_in_production.md");
page!(write_a_provider, "guide/write_a_provider.md");
page!(write_a_classifier, "guide/write_a_classifier.md");
page!(add_a_client, "guide/add_a_client.md");
page!(embedding, "guide/embedding.md");
