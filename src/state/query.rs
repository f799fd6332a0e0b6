//! Parameters of a URL.

/// The first value of a query parameter, decoded.
pub fn query_value(query: Option<&str>, name: &str) -> Option<String> {
    query?.split('&').find_map(|pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        (key == name || percent_decode(key).as_deref() == Some(name)).then(|| percent_decode(value))?
    })
}

/// Undoes percent-encoding (RFC 3986, section 2.1); `None` when the bytes are not UTF-8 or hold control
/// characters.
pub fn percent_decode(text: &str) -> Option<String> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte == b'%' {
            let digit = |b: Option<u8>| char::from(b?).to_digit(16);
            let (high, low) = (digit(bytes.next())?, digit(bytes.next())?);
            out.push((high * 16 + low) as u8);
        } else {
            out.push(byte);
        }
    }
    String::from_utf8(out).ok().filter(|text| !text.chars().any(char::is_control))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_decoded() {
        assert_eq!(query_value(Some("a=1&key=x%20y"), "key").as_deref(), Some("x y"));
        assert_eq!(query_value(Some("keys=1"), "key"), None);
        assert_eq!(query_value(None, "key"), None);
        assert_eq!(percent_decode("%zz"), None);
        assert_eq!(percent_decode("a%00"), None);
    }
}
