//! A private key for the peers that sign what they send to the issuer. Nobody checks it.

use std::sync::OnceLock;

use rsa::RsaPrivateKey;
use rsa::pkcs8::{EncodePrivateKey, LineEnding};

/// Where a process that runs under valgrind finds the key of the one that started it: finding primes
/// takes a different number of instructions each time.
pub const VARIABLE: &str = "TOWER_TOKEN_PEERS_TEST_KEY";

/// PKCS #8 in PEM, generated in this run.
pub fn pem() -> &'static str {
    static PEM: OnceLock<String> = OnceLock::new();
    PEM.get_or_init(|| std::env::var(VARIABLE).unwrap_or_else(|_| generated()))
}

fn generated() -> String {
    let key = RsaPrivateKey::new(&mut rsa::rand_core::OsRng, 2048).unwrap();
    key.to_pkcs8_pem(LineEnding::LF).unwrap().to_string()
}
