//! How every TLS connection of this crate begins.

use std::sync::Arc;

use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::{ClientConfig, ConfigBuilder, Error, WantsVerifier};

/// With the process's rustls provider where one is installed, else aws-lc-rs. Whom to trust comes next.
pub(crate) fn config() -> Result<ConfigBuilder<ClientConfig, WantsVerifier>, Error> {
    let provider = match CryptoProvider::get_default() {
        Some(installed) => installed.clone(),
        None => Arc::new(aws_lc_rs::default_provider()),
    };
    ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()
}
