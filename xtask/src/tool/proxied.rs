//! An HTTP server behind the PROXY protocol, version 2: answers every request with who came, as the header says.
//!
//! `agent NAME from ADDRESS to ADDRESS`, `local` for a connection of the connector itself. Written from the specification,
//! apart from the code under test, so that both cannot be wrong in the same way.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, TcpStream};
use std::thread;

use anyhow::{Context as _, Result, bail, ensure};

use crate::args::Args;

/// The largest header that is read.
const LARGEST: usize = 4096;

pub(super) fn main(args: &mut Args) -> Result<()> {
    let bind: SocketAddr = args.required("--bind")?;
    args.finish()?;
    let listener = TcpListener::bind(bind).with_context(|| format!("bind {bind}"))?;
    println!("ready on {bind}");
    for stream in listener.incoming().flatten() {
        thread::spawn(move || {
            match read_header(&mut &stream) {
                Ok(who) => {
                    println!("{who}");
                    // Who has heard enough may leave at any time: a health check reads no more than the status.
                    let _ = answer(&stream, &who);
                }
                Err(error) => println!("refused: {error:#}"),
            }
        });
    }
    Ok(())
}

fn answer(mut stream: &TcpStream, who: &str) -> std::io::Result<()> {
    let mut request = [0; 1024];
    if stream.read(&mut request)? == 0 {
        return Ok(());
    }
    write!(
        stream,
        "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{who}",
        who.len()
    )
}

fn read_header(stream: &mut impl Read) -> Result<String> {
    let mut fixed = [0; 16];
    stream.read_exact(&mut fixed)?;
    ensure!(fixed.starts_with(b"\r\n\r\n\0\r\nQUIT\n"), "no signature");
    let [command, family] = [fixed[12], fixed[13]];
    let length = usize::from(u16::from_be_bytes([fixed[14], fixed[15]]));
    ensure!(length <= LARGEST, "{length} bytes of header");
    let mut rest = vec![0; length];
    stream.read_exact(&mut rest)?;
    match (command, family) {
        (0x20, _) => return Ok("local".to_owned()),
        (0x21, 0x11) => {}
        _ => bail!("command {command:#x}, family {family:#x}"),
    }
    let (addresses, tlvs) = rest.split_at_checked(12).context("no addresses")?;
    let address = |ip: usize, port: usize| -> Result<SocketAddrV4> {
        let ip: [u8; 4] = addresses.get(ip..ip + 4).context("short")?.try_into()?;
        let port: [u8; 2] = addresses.get(port..port + 2).context("short")?.try_into()?;
        Ok(SocketAddrV4::new(Ipv4Addr::from(ip), u16::from_be_bytes(port)))
    };
    let ssl = find(tlvs, 0x20)?.context("no PP2_TYPE_SSL")?;
    let name = find(ssl.get(5..).context("short")?, 0x22)?.context("no name")?;
    let fingerprint = find(tlvs, 0xe0)?.context("no fingerprint")?;
    ensure!(
        fingerprint.len() == 32,
        "{} bytes of fingerprint",
        fingerprint.len()
    );
    Ok(format!(
        "agent {} from {} to {}",
        String::from_utf8_lossy(name),
        address(0, 8)?.ip(),
        address(4, 10)?
    ))
}

/// The value of the first TLV of a type.
fn find(mut tlvs: &[u8], wanted: u8) -> Result<Option<&[u8]>> {
    while let Some((&[kind, high, low], rest)) = tlvs.split_first_chunk() {
        let length = usize::from(u16::from_be_bytes([high, low]));
        let (value, rest) = rest.split_at_checked(length).context("a value is cut")?;
        if kind == wanted {
            return Ok(Some(value));
        }
        tlvs = rest;
    }
    Ok(None)
}
