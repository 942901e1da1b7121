//! Tencent Cloud: the access tokens of [Smart Media Hosting](SmhLibrary).

mod smh_library;

pub use smh_library::SmhLibrary;
