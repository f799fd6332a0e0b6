//! The PROXY header: a load balancer says whose connection it passes on (HAProxy's protocol, version 1 and 2).
//!
//! Enters: the first bytes of a connection, before TLS and HTTP. Leaves: the address of the client; the bytes
//! after the header are not touched. May go wrong: there is no header, or it is not one; the connection ends,
//! since whoever has to send one and does not is not the load balancer.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use tokio::io::{AsyncRead, AsyncReadExt};

/// How version 2 begins.
const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
/// Longest header of version 1.
const LINE: usize = 107;
/// Longest rest of a header of version 2: addresses and what else some load balancers add.
const REST: usize = 4096;

/// Reads a header and nothing after it. `None`: the load balancer speaks for itself.
pub(super) async fn read<R: AsyncRead + Unpin>(stream: &mut R) -> io::Result<Option<SocketAddr>> {
    // The shortest header of either version is longer.
    let mut start = [0; 12];
    stream.read_exact(&mut start).await?;
    if start == SIGNATURE {
        let mut head = [0; 4];
        stream.read_exact(&mut head).await?;
        let [kind, family, high, low] = head;
        let length = usize::from(u16::from_be_bytes([high, low]));
        if length > REST {
            return Err(broken("its PROXY header is too long"));
        }
        let mut rest = vec![0; length];
        stream.read_exact(&mut rest).await?;
        return version2(kind, family, &rest);
    }
    if !start.starts_with(b"PROXY ") {
        return Err(broken("it does not begin with a PROXY header"));
    }
    let mut line = start.to_vec();
    while !line.ends_with(b"\r\n") {
        if line.len() >= LINE {
            return Err(broken("its PROXY header is too long"));
        }
        // Byte by byte, from a buffer: what comes after the line is not ours.
        line.push(stream.read_u8().await?);
    }
    version1(&line)
}

fn broken(reason: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason)
}

fn version1(line: &[u8]) -> io::Result<Option<SocketAddr>> {
    let wrong = || broken("its PROXY header cannot be read");
    let text = std::str::from_utf8(line).map_err(|_| wrong())?.trim_end_matches("\r\n");
    let mut words = text.split(' ').skip(1);
    let family = words.next().ok_or_else(wrong)?;
    if family == "UNKNOWN" {
        return Ok(None);
    }
    let mut word = || words.next().ok_or_else(wrong);
    let (source, _, port, _) = (word()?, word()?, word()?, word()?);
    let source: IpAddr = source.parse().map_err(|_| wrong())?;
    let port: u16 = port.parse().map_err(|_| wrong())?;
    match (family, source) {
        ("TCP4", IpAddr::V4(_)) | ("TCP6", IpAddr::V6(_)) => Ok(Some(SocketAddr::new(source, port))),
        _ => Err(wrong()),
    }
}

fn version2(kind: u8, family: u8, rest: &[u8]) -> io::Result<Option<SocketAddr>> {
    match kind {
        0x21 => {}
        // LOCAL: a health check of the load balancer itself.
        0x20 => return Ok(None),
        _ => return Err(broken("its PROXY header is of an unknown version")),
    }
    let short = || broken("its PROXY header is too short");
    match family >> 4 {
        1 => {
            let addresses: &[u8; 12] = rest.first_chunk().ok_or_else(short)?;
            let [a, b, c, d, _, _, _, _, high, low, ..] = *addresses;
            let port = u16::from_be_bytes([high, low]);
            Ok(Some(SocketAddr::from((Ipv4Addr::new(a, b, c, d), port))))
        }
        2 => {
            let source: [u8; 16] = *rest.first_chunk().ok_or_else(short)?;
            let ports: &[u8] = rest.get(32..34).ok_or_else(short)?;
            let port = ports.first_chunk().map_or(0, |bytes| u16::from_be_bytes(*bytes));
            Ok(Some(SocketAddr::from((Ipv6Addr::from(source), port))))
        }
        // Unix sockets and what is not said have no address that means anything here.
        _ => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn v2(kind: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let mut header = SIGNATURE.to_vec();
        header.extend([kind, family]);
        header.extend((rest.len() as u16).to_be_bytes());
        header.extend(rest);
        header
    }

    async fn of(header: &[u8]) -> io::Result<(Option<SocketAddr>, usize)> {
        let bytes = [header, b"GET / HTTP/1.1\r\n"].concat();
        let mut stream = io::Cursor::new(bytes);
        let found = read(&mut stream).await?;
        Ok((found, stream.position() as usize))
    }

    #[tokio::test]
    async fn both_versions_give_the_client_and_leave_what_follows() {
        let mut six = Ipv6Addr::LOCALHOST.octets().to_vec();
        six.extend([0; 16]);
        six.extend([0x12, 0x34, 0, 80]);
        let local = v2(0x20, 0, &[]);
        let four = v2(0x21, 0x11, &[203, 0, 113, 7, 10, 0, 0, 1, 0x1f, 0x90, 0, 80, 4, 0, 1, 9]);
        let six = v2(0x21, 0x21, &six);
        for (header, client) in [
            (&b"PROXY TCP4 203.0.113.7 10.0.0.1 8080 80\r\n"[..], Some("203.0.113.7:8080")),
            (b"PROXY TCP6 2001:db8::7 ::1 8080 80\r\n", Some("[2001:db8::7]:8080")),
            (b"PROXY UNKNOWN\r\n", None),
            (b"PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n", None),
            (&local, None),
            (&four, Some("203.0.113.7:8080")),
            (&six, Some("[::1]:4660")),
        ] {
            let (found, used) = of(header).await.unwrap();
            assert_eq!(found, client.map(|text| text.parse().unwrap()), "{header:?}");
            assert_eq!(used, header.len(), "{header:?}");
        }
    }

    #[tokio::test]
    async fn what_is_no_header_is_refused() {
        let long = [b"PROXY TCP4 ".as_slice(), &[b'1'; 200]].concat();
        let short = v2(0x21, 0x11, &[1, 2, 3]);
        let version = v2(0x31, 0x11, &[0; 12]);
        for header in [
            &b"GET /health HTTP/1.1\r\n"[..],
            b"PROXY TCP4 ::1 ::1 1 2\r\n",
            b"PROXY TCP4 203.0.113.7 10.0.0.1 99999 80\r\n",
            b"PROXY TCP4 203.0.113.7\r\n",
            b"PROXY \xff\xff\xff\xff\xff\xff\xff\xff\r\n",
            &long,
            &short,
            &version,
        ] {
            assert!(of(header).await.is_err(), "{header:?}");
        }
    }
}
