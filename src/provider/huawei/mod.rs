//! Huawei OneAccess: tokens of [a person](OneAccess) and of [an application](Tenant).
//!
//! Client and secret travel in the form; nothing else is documented to work. Errors come in two shapes,
//! `error` with `error_description` and `error_code` with `error_msg`, and both are read.

mod one_access;
mod tenant;

pub use one_access::OneAccess;
pub use tenant::Tenant;

/// What errors mean. Source: OneAccess "IssueOAuthAccessToken", "RenewOAuthToken", "ShowAuthToken"; RFC 6749 §5.2.
macro_rules! errors {
    () => {
        r#"{
            "code": ["/error", "/error_code"],
            "classes": {
                "throttled": ["slow_down"],
                "transient": ["temporarily_unavailable", "server_error"],
                "terminal": ["invalid_grant"],
                "config": [
                    "invalid_client", "unauthorized_client", "unsupported_grant_type", "invalid_request",
                    "invalid_scope"
                ]
            }
        }"#
    };
}
pub(in crate::provider) use errors;
