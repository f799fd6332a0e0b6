//! Whose request it is when proxies of the operator stand between.
//!
//! Enters: the address of the connection, its headers, the networks that are trusted. Leaves: the address of
//! the client: the last one that no trusted proxy vouches for. May go wrong: a header that says nothing usable,
//! which counts as its end; what stands before it was written by somebody whom nobody trusts.

use http::HeaderMap;
use ipnet::IpNet;
use std::net::{IpAddr, SocketAddr};

/// Longest chain of proxies.
const HOPS: usize = 32;

/// The address of the client behind `peer`.
pub fn client(peer: IpAddr, headers: &HeaderMap, trusted: &[IpNet]) -> IpAddr {
    let believed = |address: &IpAddr| trusted.iter().any(|network| network.contains(address));
    let mut found = peer.to_canonical();
    if trusted.is_empty() || !believed(&found) {
        return found;
    }
    for hop in hops(headers).into_iter().rev().take(HOPS) {
        let Some(address) = hop else { break };
        found = address;
        if !believed(&found) {
            break;
        }
    }
    found
}

/// The addresses of the headers, the nearest last; `None` where one is not an address. `X-Forwarded-For` is
/// what most proxies write, and the one that counts where both are there.
fn hops(headers: &HeaderMap) -> Vec<Option<IpAddr>> {
    let named = |name: &str| headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok());
    let plain: Vec<_> = named("x-forwarded-for").flat_map(|text| text.split(',')).map(address).collect();
    if !plain.is_empty() {
        return plain;
    }
    named("forwarded").flat_map(|text| text.split(',')).map(for_of).collect()
}

/// The `for` of one element of `Forwarded` (RFC 7239).
fn for_of(element: &str) -> Option<IpAddr> {
    element.split(';').find_map(|pair| {
        let (name, value) = pair.split_once('=')?;
        name.trim().eq_ignore_ascii_case("for").then(|| address(value.trim().trim_matches('"')))
    })?
}

/// An address, with a port or without: `192.0.2.1`, `192.0.2.1:80`, `2001:db8::1`, `[2001:db8::1]:80`.
fn address(text: &str) -> Option<IpAddr> {
    let text = text.trim();
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    let found = bare.parse().ok().or_else(|| text.parse::<SocketAddr>().ok().map(|address| address.ip()));
    found.map(|address: IpAddr| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(peer: &str, headers: &[(&'static str, &str)]) -> String {
        let trusted: Vec<IpNet> =
            ["10.0.0.0/8", "::1/128"].iter().map(|text| text.parse().unwrap()).collect();
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, value.parse().unwrap());
        }
        client(peer.parse().unwrap(), &map, &trusted).to_string()
    }

    #[test]
    fn only_trusted_proxies_are_believed_and_only_as_far_as_they_reach() {
        const XFF: &str = "x-forwarded-for";
        for (peer, headers, client) in [
            ("192.0.2.9", &[(XFF, "127.0.0.1")][..], "192.0.2.9"),
            ("10.0.0.1", &[], "10.0.0.1"),
            ("10.0.0.1", &[(XFF, "198.51.100.7")], "198.51.100.7"),
            ("::ffff:10.0.0.1", &[(XFF, "198.51.100.7:4711")], "198.51.100.7"),
            // What a client writes itself stands before what the proxy saw.
            ("10.0.0.1", &[(XFF, "127.0.0.1, 198.51.100.7")], "198.51.100.7"),
            ("10.0.0.1", &[(XFF, "127.0.0.1"), (XFF, "198.51.100.7, 10.9.9.9")], "198.51.100.7"),
            ("10.0.0.1", &[(XFF, "127.0.0.1, unknown, 10.2.2.2")], "10.2.2.2"),
            ("10.0.0.1", &[(XFF, "")], "10.0.0.1"),
            (
                "::1",
                &[("forwarded", "for=192.0.2.60;proto=http, FOR=\"[2001:db8::17]:4711\"")],
                "2001:db8::17",
            ),
            ("::1", &[("forwarded", "for=192.0.2.60, for=_hidden")], "::1"),
            ("::1", &[("forwarded", "proto=https")], "::1"),
        ] {
            assert_eq!(found(peer, headers), client, "{peer} {headers:?}");
        }
    }
}
