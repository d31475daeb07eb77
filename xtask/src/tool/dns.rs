//! A DNS server (RFC 1035) that knows one zone: every name under `.lab` has one address of each family and a long text;
//! nothing else exists. UDP and TCP; every question is printed.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::args::Args;

/// Header fields: a response, authoritative, to a query that wished recursion.
const FLAGS: u16 = 0x8500;
const NXDOMAIN: u16 = 3;
/// Bytes of one of the four strings of a text.
const STRING: u8 = 250;

pub(super) fn main(args: &mut Args) -> Result<()> {
    let bind: SocketAddr = args.required("--bind")?;
    args.finish()?;
    let socket = UdpSocket::bind(bind).with_context(|| format!("bind {bind}"))?;
    let listener = TcpListener::bind(bind).with_context(|| format!("bind {bind}"))?;
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            // Whoever breaks off asks again.
            let _ = stream_answer(stream);
        }
    });
    println!("ready on {bind}");
    let mut buffer = vec![0; 4096];
    loop {
        let Ok((length, from)) = socket.recv_from(&mut buffer) else {
            continue;
        };
        if let Some(reply) = buffer.get(..length).and_then(answer) {
            let _ = socket.send_to(&reply, from);
        }
    }
}

/// Answers the questions of one connection, each behind its length.
fn stream_answer(mut stream: TcpStream) -> std::io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    loop {
        let mut length = [0; 2];
        stream.read_exact(&mut length)?;
        let mut query = vec![0; usize::from(u16::from_be_bytes(length))];
        stream.read_exact(&mut query)?;
        let Some(reply) = answer(&query) else {
            return Ok(());
        };
        let mut framed = u16::try_from(reply.len()).unwrap_or(0).to_be_bytes().to_vec();
        framed.extend(reply);
        stream.write_all(&framed)?;
    }
}

/// The answer to a query with one question; `None` for anything else.
fn answer(query: &[u8]) -> Option<Vec<u8>> {
    let (header, rest) = query.split_at_checked(12)?;
    if header.get(2)? & 0x80 != 0 || header.get(4..6)? != [0, 1] {
        return None;
    }
    let mut labels: Vec<&[u8]> = Vec::new();
    let mut at = 0;
    loop {
        let length = usize::from(*rest.get(at)?);
        at += 1;
        if length == 0 {
            break;
        }
        labels.push(rest.get(at..at + length)?);
        at += length;
    }
    let question = rest.get(..at + 4)?;
    println!("asked {}", String::from_utf8_lossy(&labels.join(&b'.')));
    let kind = u16::from_be_bytes(rest.get(at..at + 2)?.try_into().ok()?);
    let ours = labels
        .last()
        .is_some_and(|last| last.eq_ignore_ascii_case(b"lab"));
    let data: Option<Vec<u8>> = match kind {
        _ if !ours => None,
        1 => Some(vec![192, 0, 2, 53]),
        28 => Some([&[0x20, 0x01, 0x0d, 0xb8][..], &[0; 11], &[0x53]].concat()),
        16 => {
            let string = [&[STRING][..], &[b'x'; STRING as usize]].concat();
            Some(string.repeat(4))
        }
        _ => None,
    };
    let flags = if ours { FLAGS } else { FLAGS | NXDOMAIN };
    let mut reply = header.get(..2)?.to_vec();
    for field in [flags, 1, u16::from(data.is_some()), 0, 0] {
        reply.extend_from_slice(&field.to_be_bytes());
    }
    reply.extend_from_slice(question);
    if let Some(data) = data {
        // The name of the question, by reference; class IN; a minute.
        reply.extend_from_slice(&[0xc0, 12]);
        reply.extend_from_slice(&kind.to_be_bytes());
        reply.extend_from_slice(&[0, 1, 0, 0, 0, 60]);
        reply.extend_from_slice(&u16::try_from(data.len()).ok()?.to_be_bytes());
        reply.extend_from_slice(&data);
    }
    Some(reply)
}
