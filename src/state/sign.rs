//! Signatures of service accounts.
//!
//! Enters: a private key (PEM) and what is to be signed. Leaves: the signature, RSA PKCS #1 v1.5 over SHA-256
//! (RS256 of RFC 7518). May go wrong: the key is none, or not one of RSA.

use rustls::SignatureScheme;
use rustls::crypto::ring::sign::any_supported_type;
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject;

/// Whether a key can sign.
pub fn check(pem: &str) -> Result<(), String> {
    rs256(pem, b"").map(drop)
}

/// Signs `message` with the key `pem`.
pub(super) fn rs256(pem: &str, message: &[u8]) -> Result<Vec<u8>, String> {
    // The causes are not told: they may quote the key.
    let key = PrivateKeyDer::from_pem_slice(pem.as_bytes());
    let key = key.map_err(|_| "its private key is not PEM".to_owned())?;
    let key = any_supported_type(&key).map_err(|_| "its private key cannot be used".to_owned())?;
    let signer = key.choose_scheme(&[SignatureScheme::RSA_PKCS1_SHA256]);
    let signer = signer.ok_or_else(|| "its private key is not one of RSA".to_owned())?;
    signer.sign(message).map_err(|_| "its private key cannot sign".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_key_is_told_and_not_quoted() {
        for pem in ["", "canary", "-----BEGIN PRIVATE KEY-----\nY2FuYXJ5\n-----END PRIVATE KEY-----\n"] {
            let told = rs256(pem, b"x").unwrap_err();
            assert!(told.contains("private key") && !told.contains("canary"), "{told}");
        }
    }
}
