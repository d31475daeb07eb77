//! An HTTP/1.1 file server: `GET /bytes/N` sends N bytes of the endless file, `GET /who` the server's name, and whatever is
//! uploaded is answered with its SHA-256.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;

use anyhow::{Context as _, Result, bail};

use super::content::{self, Hash};
use crate::args::Args;

/// Longest request line or header line read.
const LINE_LIMIT: u64 = 8192;

pub(super) fn main(args: &mut Args) -> Result<()> {
    let bind: SocketAddr = args.required("--bind")?;
    let name: String = args.value("--name")?.unwrap_or_default();
    args.finish()?;
    let listener = TcpListener::bind(bind).with_context(|| format!("bind {bind}"))?;
    println!("ready on {bind}");
    for stream in listener.incoming().flatten() {
        let name = name.clone();
        thread::spawn(move || {
            if let Err(error) = serve(&stream, &name) {
                eprintln!("{error:#}");
            }
        });
    }
    Ok(())
}

struct Request {
    method: String,
    path: String,
    length: u64,
    expects_continue: bool,
}

fn serve(stream: &TcpStream, name: &str) -> Result<()> {
    stream.set_nodelay(true)?;
    let mut reader = BufReader::with_capacity(1 << 16, stream);
    let mut writer = stream;
    let request = read_request(&mut reader)?;
    if matches!(request.method.as_str(), "PUT" | "POST") {
        if request.expects_continue {
            writer.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
        }
        let mut hash = Hash::default();
        std::io::copy(&mut reader.take(request.length), &mut hash)?;
        if hash.length() != request.length {
            bail!("upload ended at {} of {} bytes", hash.length(), request.length);
        }
        return answer(&mut writer, hash.finish().as_bytes());
    }
    if request.path == "/who" {
        return answer(&mut writer, name.as_bytes());
    }
    let Some(length) = request
        .path
        .strip_prefix("/bytes/")
        .and_then(|length| length.parse().ok())
    else {
        writer.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")?;
        return Ok(());
    };
    write!(
        writer,
        "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n"
    )?;
    content::write(&mut writer, length)?;
    Ok(())
}

fn answer(writer: &mut impl Write, body: &[u8]) -> Result<()> {
    write!(
        writer,
        "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    )?;
    writer.write_all(body)?;
    Ok(())
}

fn read_request(reader: &mut impl BufRead) -> Result<Request> {
    let first = read_line(reader)?;
    let mut words = first.split_whitespace();
    let (Some(method), Some(path)) = (words.next(), words.next()) else {
        bail!("not a request: {first}");
    };
    let mut request = Request {
        method: method.to_owned(),
        path: path.to_owned(),
        length: 0,
        expects_continue: false,
    };
    loop {
        let line = read_line(reader)?.to_ascii_lowercase();
        if line.is_empty() {
            return Ok(request);
        }
        match line.split_once(':').map(|(name, value)| (name, value.trim())) {
            Some(("content-length", value)) => request.length = value.parse()?,
            Some(("expect", "100-continue")) => request.expects_continue = true,
            _ => {}
        }
    }
}

fn read_line(reader: &mut impl BufRead) -> Result<String> {
    let mut line = String::new();
    if reader.take(LINE_LIMIT).read_line(&mut line)? == 0 {
        bail!("connection closed in the middle of a request");
    }
    Ok(line.trim_end().to_owned())
}
