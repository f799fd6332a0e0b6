//! The proxy inside another program: starts it on a free port, asks for its health, ends it.
//!
//!     cargo run --example embed

use std::io::{Read, Write};
use std::net::TcpStream;

const CONFIG: &str = "
host: 127.0.0.1
port: 0
api-keys: [choose-a-key]
metrics: {listen: \"\"}
";

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let proxy = cliproxy::embed::run(CONFIG)?;
    let address = proxy.addresses().first().copied().ok_or("it listens nowhere")?;
    let mut connection = TcpStream::connect(address)?;
    connection.write_all(b"GET /health HTTP/1.1\r\nhost: proxy\r\nconnection: close\r\n\r\n")?;
    let mut answer = String::new();
    connection.read_to_string(&mut answer)?;
    writeln!(std::io::stdout(), "{address} says:\n{answer}")?;
    proxy.shutdown()?;
    Ok(())
}
