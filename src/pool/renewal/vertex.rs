//! Vertex AI: a service account signs a claim and gets a token for it (RFC 7523).
//!
//! Enters: an account with a private key. Leaves: the request, and what the answer means. May go wrong: the
//! key cannot sign, or Google does not know the account.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use config::Account;

use super::{Keeps, Strategy, TokenRequest, With, endpoint};

const TOKEN: &str = "https://oauth2.googleapis.com/token";
const SCOPE: &str = "https://www.googleapis.com/auth/cloud-platform";
const GRANT: &str = "urn:ietf:params:oauth:grant-type:jwt-bearer";
/// Seconds for which the claim is good: the most that Google takes.
const LIFE_S: u64 = 3600;

#[derive(Debug)]
pub(super) struct Vertex;

impl Strategy for Vertex {
    fn keeps(&self) -> Keeps {
        Keeps::Memory
    }

    fn able(&self, account: &Account) -> bool {
        !account.grant.issuer.is_empty() && !account.secret.is_empty()
    }

    fn request(&self, account: &Account, with: &With<'_>) -> Result<TokenRequest, String> {
        let audience = if account.token_endpoint.is_empty() { TOKEN } else { &account.token_endpoint };
        let assertion = assertion(account, audience, with)?;
        Ok(TokenRequest::form(endpoint(audience, with), &[("grant_type", GRANT), ("assertion", &assertion)]))
    }
}

fn assertion(account: &Account, audience: &str, with: &With<'_>) -> Result<String, String> {
    let (mut head, mut claims) = (Vec::new(), Vec::new());
    wire::json::object(&mut head, |o| {
        o.str("alg", "RS256");
        o.str("typ", "JWT");
        if !account.grant.key_id.is_empty() {
            o.str("kid", &account.grant.key_id);
        }
    });
    wire::json::object(&mut claims, |o| {
        o.str("iss", &account.grant.issuer);
        o.str("scope", SCOPE);
        o.str("aud", audience);
        o.uint("iat", with.now_s);
        o.uint("exp", with.now_s.saturating_add(LIFE_S));
    });
    let signed = format!("{}.{}", URL_SAFE_NO_PAD.encode(head), URL_SAFE_NO_PAD.encode(claims));
    // Some tools write the line breaks of the key as two characters.
    let key = account.secret.expose_secret().replace("\\n", "\n");
    let signature = (with.sign)(&key, signed.as_bytes())?;
    Ok(format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature)))
}

#[cfg(test)]
mod tests {
    use super::super::request;
    use super::super::tests::{account, with};
    use super::*;
    use secrecy::ExposeSecret;

    #[test]
    fn a_claim_names_the_account_and_is_signed_with_its_key() {
        let text = r#"{"type":"vertex","project_id":"p","service_account":{"client_email":"a@p.test","private_key":"KEY\\nEND","private_key_id":"7"}}"#;
        let made = request(&account(text), &with(None, None)).unwrap();
        assert_eq!(made.url, TOKEN);
        let body = made.body.expose_secret();
        assert!(
            body.starts_with("grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Ajwt-bearer&assertion="),
            "{body}"
        );
        let token = body.rsplit('=').next().unwrap();
        let parts: Vec<_> = token.split('.').map(|part| URL_SAFE_NO_PAD.decode(part).unwrap()).collect();
        assert_eq!(parts[0], br#"{"alg":"RS256","typ":"JWT","kid":"7"}"#);
        let claims = format!(
            r#"{{"iss":"a@p.test","scope":"{SCOPE}","aud":"{TOKEN}","iat":1795233600,"exp":1795237200}}"#
        );
        assert_eq!(parts[1], claims.as_bytes());
        let (signed, _) = token.rsplit_once('.').unwrap();
        assert_eq!(parts[2], format!("KEY\nEND{signed}").as_bytes());
    }
}
