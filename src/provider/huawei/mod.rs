//! Huawei `OneAccess`: tokens of [a person](OneAccess) and of [an application](Tenant).
//!
//! Client and secret travel in the form; nothing else is documented to work. Errors come in two shapes,
//! `error` with `error_description` and `error_code` with `error_msg`, and both are read.
//!
//! | an answer | means |
//! |---|---|
//! | `invalid_grant`, and any 4xx in JSON that is not listed here | the refresh token is dead ([`Class::Terminal`](crate::Class::Terminal)) |
//! | `invalid_client`, `invalid_request`, `invalid_scope`, `unauthorized_client`, `unsupported_grant_type` | the configuration is wrong ([`Class::Config`](crate::Class::Config)); `invalid_client` is also what a wrong code gets |
//! | `slow_down`, 429 | throttled |
//! | `temporarily_unavailable`, `server_error`, 503 | transient |

mod one_access;
mod tenant;

pub use one_access::OneAccess;
pub use tenant::Tenant;

/// What errors mean. Source: `OneAccess`, `IssueOAuthAccessToken`, `RenewOAuthToken`, `ShowAuthToken`; RFC 6749 §5.2.
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
