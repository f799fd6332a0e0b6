//! Kiro: logins of Google or GitHub at its own service, logins of AWS at AWS's.
//!
//! Enters: an account. Leaves: the request, and what the answer means. May go wrong: a login of AWS without
//! the client that was registered for it, or a region that is none.

use config::Account;

use super::{Renewed, Strategy, TokenRequest, With, endpoint, oauth2, refused};

pub(crate) const SOCIAL: &str = "https://prod.us-east-1.auth.desktop.kiro.dev/refreshToken";
/// Where AWS's logins are when the file names no region.
pub(crate) const REGION: &str = "us-east-1";
/// Seconds for which a token is good that says nothing.
const USUAL_S: u64 = 3600;

#[derive(Debug)]
pub(super) struct Kiro;

impl Strategy for Kiro {
    fn lead_s(&self) -> u64 {
        20 * 60
    }

    fn request(&self, account: &Account, with: &With<'_>) -> Result<TokenRequest, String> {
        let refresh = account.refresh_token.expose_secret();
        let grant = &account.grant;
        // Older files do not say how they came to be; a registered client tells.
        let social = match grant.method.as_str() {
            "social" => true,
            "builder-id" | "idc" => false,
            _ => grant.client_id.is_empty(),
        };
        if social {
            return Ok(TokenRequest::json(endpoint(SOCIAL, with), &[("refreshToken", refresh)]));
        }
        if grant.client_id.is_empty() || grant.client_secret.is_empty() {
            return Err("`client_id` or `client_secret` of its login is missing".to_owned());
        }
        let region = if grant.region.is_empty() { REGION } else { &grant.region };
        if !is_region(region) {
            return Err("`region` is not the name of a region of AWS".to_owned());
        }
        let members = [
            ("clientId", grant.client_id.as_str()),
            ("clientSecret", grant.client_secret.expose_secret()),
            ("grantType", "refresh_token"),
            ("refreshToken", refresh),
        ];
        Ok(TokenRequest::json(
            endpoint(&format!("https://oidc.{region}.amazonaws.com/token"), with),
            &members,
        ))
    }

    fn read(&self, status: u16, body: &[u8], now_s: u64) -> Renewed {
        if !(200..300).contains(&status) {
            let over = ["invalid_grant", "InvalidGrantException", "ExpiredTokenException", "Bad credentials"];
            return refused(status, body, &over);
        }
        let mut renewed = oauth2::read(status, body, now_s);
        if let Renewed::Tokens(tokens) = &mut renewed {
            let seconds = tokens.expires_in.filter(|seconds| *seconds > 0).unwrap_or(USUAL_S);
            tokens.expires_in = Some(seconds);
            tokens.end_s = Some(now_s.saturating_add(seconds));
        }
        renewed
    }
}

/// `eu-west-1`: it becomes part of a host name.
pub(crate) fn is_region(text: &str) -> bool {
    let mut parts = text.split('-');
    let word =
        |part: &str| part.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit()) && !part.is_empty();
    let first =
        parts.next().is_some_and(|part| part.len() == 2 && part.bytes().all(|b| b.is_ascii_lowercase()));
    let rest: Vec<_> = parts.collect();
    let number = rest.last().is_some_and(|part| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit()));
    first && number && rest.len() >= 2 && text.len() <= 32 && rest.iter().all(|part| word(part))
}

#[cfg(test)]
mod tests {
    use super::super::tests::{account, with};
    use super::super::{read, request};
    use super::*;
    use secrecy::ExposeSecret;

    fn made(rest: &str) -> Result<TokenRequest, String> {
        let text = format!(r#"{{"type":"kiro","access_token":"t","refresh_token":"canary"{rest}}}"#);
        request(&account(&text), &with(None, None))
    }

    #[test]
    fn logins_are_renewed_where_they_were_made() {
        let social = made(r#","auth_method":"social""#).unwrap();
        assert_eq!(social.url, SOCIAL);
        assert_eq!(social.body.expose_secret(), r#"{"refreshToken":"canary"}"#);
        for rest in ["", r#","auth_method":"IdC""#, r#","auth_method":"builder-id""#] {
            let rest = format!(r#","clientId":"c","clientSecret":"s","region":"eu-west-1"{rest}"#);
            let aws = made(&rest).unwrap();
            assert_eq!(aws.url, "https://oidc.eu-west-1.amazonaws.com/token");
            assert_eq!(
                aws.body.expose_secret(),
                r#"{"clientId":"c","clientSecret":"s","grantType":"refresh_token","refreshToken":"canary"}"#
            );
        }
        assert!(made(r#","auth_method":"idc""#).unwrap_err().contains("client_id"));
        let bad = r#","auth_method":"idc","client_id":"c","client_secret":"s","region":"x.evil.test/""#;
        assert!(made(bad).unwrap_err().contains("region"));
    }

    #[test]
    fn regions() {
        assert!(["us-east-1", "eu-central-2", "us-gov-west-1"].iter().all(|text| is_region(text)));
        assert!(
            !["", "us", "us-1", "us-east-1.evil", "US-east-1", "us--1", "us-east-x"]
                .iter()
                .any(|text| is_region(text))
        );
    }

    #[test]
    fn answers_in_camel_case() {
        let kiro = account(r#"{"type":"kiro","access_token":"t","refresh_token":"r"}"#);
        let Renewed::Tokens(tokens) =
            read(&kiro, 200, br#"{"accessToken":"n","refreshToken":"m","profileArn":"arn"}"#, 1000)
        else {
            panic!()
        };
        assert_eq!((tokens.access_token.expose_secret(), tokens.end_s), ("n", Some(4600)));
        let over =
            read(&kiro, 400, br#"{"__type":"InvalidGrantException","message":"Invalid refresh token"}"#, 0);
        assert!(matches!(over, Renewed::NeedsLogin(reason) if reason.contains("InvalidGrant")));
        assert!(matches!(read(&kiro, 503, b"", 0), Renewed::Later(_)));
    }
}
