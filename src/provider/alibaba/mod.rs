//! Alibaba Cloud: the tokens of [IMM's online documents](Weboffice) and of [WUYING cloud desktops](WuyingLogin).
//!
//! Errors are read by their `Code`, whatever the status: throttling comes as HTTP 400, and
//! `x-acs-retry-after` says how long in milliseconds. A wrong signature or a missing permission is a fault of
//! the configuration ([`Class::Config`](crate::Class::Config)); any other refusal of a renewal means that the token is dead, because
//! the codes for that are not published. Redirects are not followed.

mod weboffice;
mod wuying_login;

pub use weboffice::{PageToken, Weboffice};
pub use wuying_login::WuyingLogin;

/// What the errors of both mean. Source: "Error handling" of IMM; "Gateway error codes".
macro_rules! errors {
    () => {
        r#"{
            "code": ["/Code", "/code"],
            "unfinished": "/NextStage",
            "classes": {
                "throttled": ["Throttling*"],
                "clock": ["InvalidTimeStamp.Expired"],
                "ambiguous": ["SignatureNonceUsed"],
                "config": [
                    "SignatureDoesNotMatch", "IncompleteSignature", "InvalidTimeStamp*", "InvalidAccessKeyId*",
                    "InvalidSecurityToken*", "MissingSecurityToken", "NoPermission*", "Forbidden*",
                    "InvalidAction*", "InvalidVersion*", "MissingAction*", "MissingVersion*"
                ],
                "needs_interaction": ["ADPassword", "MFABind", "MFAVerify", "TokenVerify", "ChangePassword", "KeepAliveVerify"]
            }
        }"#
    };
}
pub(in crate::provider) use errors;
