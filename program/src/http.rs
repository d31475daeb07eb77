//! `/healthz`, `/readyz` and `/metrics`: as much HTTP/1.0 as a probe and a scraper need, on threads of its own.
//!
//! Every connection carries one small request, has two seconds for it and is closed. A handful of threads accept, so
//! slow or hostile clients can delay each other but never the packet loop.

use std::fmt;
use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Longest request, headers included.
const MAX_REQUEST: usize = 4096;

/// How long a request may take to arrive, and an answer to leave.
const PATIENCE: Duration = Duration::from_secs(2);

/// Connections served at a time.
const THREADS: usize = 4;

/// Pause after the system had no descriptor for a connection.
const PAUSE: Duration = Duration::from_millis(100);

/// What is served.
pub trait Pages: Send + Sync + 'static {
    /// `Ok` while a restart could mend nothing; what is said then begins with "ok".
    ///
    /// # Errors
    /// What is missing, short, for people and logs.
    fn health(&self) -> Result<String, String>;

    /// `Ok` while the program is of any use to others, with the same words.
    ///
    /// # Errors
    /// As [`Pages::health`].
    fn ready(&self) -> Result<String, String>;

    /// The metrics as text; `None` if the program does not answer.
    fn metrics(&self) -> Option<String>;
}

/// Why nothing can be served; the text is fit for the operator.
#[derive(Debug)]
pub struct ListenError {
    address: SocketAddr,
    error: io::Error,
}

impl fmt::Display for ListenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { address, error } = self;
        let what = crate::settings::describe(error);
        write!(f, "cannot listen on TCP {address} for metrics: {what}; ")?;
        if error.kind() == io::ErrorKind::AddrInUse {
            f.write_str("stop the other process, or choose another metrics_port (0 for none)")
        } else {
            f.write_str("choose another metrics_addr or metrics_port (0 for none)")
        }
    }
}

impl std::error::Error for ListenError {}

/// Listens; connections wait until [`serve`].
///
/// # Errors
/// If the address is in use, not permitted or not of this host.
pub fn listen(address: SocketAddr) -> Result<TcpListener, ListenError> {
    TcpListener::bind(address).map_err(|error| ListenError { address, error })
}

/// Serves until the process ends.
///
/// # Errors
/// If no thread can be started.
pub fn serve(listener: TcpListener, pages: impl Pages) -> io::Result<()> {
    let listener = Arc::new(listener);
    let pages = Arc::new(pages);
    for _ in 0..THREADS {
        let listener = Arc::clone(&listener);
        let pages = Arc::clone(&pages);
        std::thread::Builder::new()
            .name("metrics".to_owned())
            .spawn(move || {
                loop {
                    match listener.accept() {
                        // A client that breaks off is its own affair.
                        Ok((stream, _)) => drop(answer(&stream, pages.as_ref())),
                        Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                        Err(_) => std::thread::sleep(PAUSE),
                    }
                }
            })?;
    }
    Ok(())
}

fn answer(stream: &TcpStream, pages: &impl Pages) -> io::Result<()> {
    let deadline = Instant::now() + PATIENCE;
    let request = read_request(stream, deadline)?;
    let response = respond(&request, pages);
    let mut stream = stream;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.write_all(&response)?;
    stream.shutdown(Shutdown::Write)?;
    // Closing with unread bytes would reset the connection, and the answer might be lost with it.
    let mut rest = [0; 512];
    for _ in 0..8 {
        set_deadline(stream, deadline)?;
        if stream.read(&mut rest)? == 0 {
            break;
        }
    }
    Ok(())
}

fn set_deadline(stream: &TcpStream, deadline: Instant) -> io::Result<()> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() {
        return Err(io::ErrorKind::TimedOut.into());
    }
    stream.set_read_timeout(Some(left))
}

/// Reads up to the empty line that ends a request without a body, or up to the limit.
fn read_request(mut stream: &TcpStream, deadline: Instant) -> io::Result<Vec<u8>> {
    let mut request = Vec::new();
    let mut chunk = [0; 1024];
    while request.len() < MAX_REQUEST && !is_complete(&request) {
        set_deadline(stream, deadline)?;
        let count = stream.read(&mut chunk)?;
        if count == 0 {
            break;
        }
        request.extend_from_slice(&chunk[..count]);
    }
    Ok(request)
}

fn is_complete(request: &[u8]) -> bool {
    request.windows(4).any(|w| w == b"\r\n\r\n") || request.windows(2).any(|w| w == b"\n\n")
}

const PLAIN: &str = "text/plain; charset=utf-8";

/// The whole answer to a request.
fn respond(request: &[u8], pages: &impl Pages) -> Vec<u8> {
    const METRICS: &str = "text/plain; version=0.0.4; charset=utf-8";
    if !is_complete(request) {
        let status = if request.len() >= MAX_REQUEST {
            "431 Request Header Fields Too Large"
        } else {
            "400 Bad Request"
        };
        return write_response(status, PLAIN, "not a request\n", true);
    }
    let Some((method, path)) = request_line(request) else {
        return write_response("400 Bad Request", PLAIN, "not a request\n", true);
    };
    let with_body = match method {
        "GET" => true,
        "HEAD" => false,
        _ => {
            return write_response(
                "405 Method Not Allowed\r\nAllow: GET, HEAD",
                PLAIN,
                "GET or HEAD\n",
                true,
            );
        }
    };
    match path {
        "/healthz" => write_response_of(pages.health(), with_body),
        "/readyz" => write_response_of(pages.ready(), with_body),
        "/metrics" => match pages.metrics() {
            Some(text) => write_response("200 OK", METRICS, &text, with_body),
            None => write_response("503 Service Unavailable", PLAIN, "no answer\n", with_body),
        },
        _ => write_response(
            "404 Not Found",
            PLAIN,
            "/healthz, /readyz or /metrics\n",
            with_body,
        ),
    }
}

/// One line about how the program is.
fn write_response_of(health: Result<String, String>, with_body: bool) -> Vec<u8> {
    let (status, words) = match health {
        Ok(words) => ("200 OK", words),
        Err(words) => ("503 Service Unavailable", words),
    };
    // Names of services are in it, which are any bytes that are text.
    let words = words.chars().map(|c| if c.is_control() { ' ' } else { c });
    let line: String = words.chain(['\n']).collect();
    write_response(status, PLAIN, &line, with_body)
}

/// Method and path of `GET /path?query HTTP/1.x`.
fn request_line(request: &[u8]) -> Option<(&str, &str)> {
    let line = request.split(|byte| *byte == b'\n').next()?;
    let line = std::str::from_utf8(line).ok()?.trim_end_matches('\r');
    let mut words = line.split(' ');
    let (method, target, version) = (words.next()?, words.next()?, words.next()?);
    if words.next().is_some() || !version.starts_with("HTTP/1.") {
        return None;
    }
    Some((method, target.split('?').next()?))
}

fn write_response(status: &str, content_type: &str, body: &str, with_body: bool) -> Vec<u8> {
    let mut response = format!(
        "HTTP/1.0 {status}\r\nContent-Type: {content_type}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    if with_body {
        response.push_str(body);
    }
    response.into_bytes()
}

#[cfg(test)]
mod tests;
