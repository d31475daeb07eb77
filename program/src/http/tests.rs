use super::*;

struct Fixed(Result<(), String>);

impl Pages for Fixed {
    fn health(&self) -> Result<String, String> {
        self.0.clone().map(|()| "ok".to_owned())
    }

    fn ready(&self) -> Result<String, String> {
        self.0.clone().map(|()| "ok; withdrawn: echo".to_owned())
    }

    fn metrics(&self) -> Option<String> {
        self.0.is_ok().then(|| "ztna_x 1\n".to_owned())
    }
}

fn well() -> Fixed {
    Fixed(Ok(()))
}

fn status(request: &[u8], pages: &Fixed) -> String {
    let response = String::from_utf8(respond(request, pages)).unwrap();
    response.split("\r\n").next().unwrap().to_owned()
}

#[test]
fn both_pages_answer() {
    let response = |text: &str, pages: &Fixed| String::from_utf8(respond(text.as_bytes(), pages)).unwrap();
    assert_eq!(
        response("GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n", &well()),
        "HTTP/1.0 200 OK\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: 3\r\nConnection: close\r\n\r\nok\n"
    );
    assert!(response("GET /readyz HTTP/1.0\n\n", &well()).ends_with("\r\n\r\nok; withdrawn: echo\n"));
    assert!(response("GET /metrics?x=1 HTTP/1.0\n\n", &well()).ends_with(
        "version=0.0.4; charset=utf-8\r\nContent-Length: 9\r\nConnection: close\r\n\r\nztna_x 1\n"
    ));
    let head = response("HEAD /metrics HTTP/1.1\r\n\r\n", &well());
    assert!(head.contains("Content-Length: 9") && head.ends_with("\r\n\r\n"));
    let ill = Fixed(Err("not registered: web\r\napp".to_owned()));
    let response = response("GET /healthz HTTP/1.1\r\n\r\n", &ill);
    assert!(response.starts_with("HTTP/1.0 503 "));
    assert!(
        response.ends_with("\r\n\r\nnot registered: web  app\n"),
        "{response}"
    );
    assert_eq!(
        status(b"GET /metrics HTTP/1.1\r\n\r\n", &ill),
        "HTTP/1.0 503 Service Unavailable"
    );
}

#[test]
fn junk_gets_a_clean_refusal() {
    let long = [b"GET /".as_slice(), &vec![b'x'; MAX_REQUEST]].concat();
    for (request, expected) in [
        (b"".as_slice(), "400"),
        (b"\r\n\r\n", "400"),
        (b"GET /healthz HTTP/1.1\r\n", "400"),
        (b"GET /healthz\r\n\r\n", "400"),
        (b"GET  /healthz HTTP/1.1\r\n\r\n", "400"),
        (b"GET /healthz SPDY/3\r\n\r\n", "400"),
        (b"\xff\xfe /healthz HTTP/1.1\r\n\r\n", "400"),
        (b"\x16\x03\x01\x02\x00\n\n", "400"),
        (b"POST /metrics HTTP/1.1\r\n\r\n", "405"),
        (b"GET / HTTP/1.1\r\n\r\n", "404"),
        (b"GET /healthz/../x HTTP/1.1\r\n\r\n", "404"),
        (long.as_slice(), "431"),
    ] {
        let status = status(request, &well());
        assert!(
            status.starts_with(&format!("HTTP/1.0 {expected} ")),
            "{status} for {}",
            request.escape_ascii()
        );
    }
}

/// What a client reads that sends `bytes` and closes its half.
fn exchange(address: SocketAddr, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    // The server may have answered and closed before everything is written.
    let _ = stream.write_all(bytes);
    let _ = stream.shutdown(Shutdown::Write);
    let mut response = Vec::new();
    let _ = stream.read_to_end(&mut response);
    String::from_utf8_lossy(&response).into_owned()
}

#[test]
fn it_serves_after_idle_slow_and_hostile_clients() {
    let listener = listen("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = listener.local_addr().unwrap();
    serve(listener, well()).unwrap();
    // As many idle clients as threads: they are given up and the next ones served.
    let idle: Vec<TcpStream> = (0..THREADS)
        .map(|_| TcpStream::connect(address).unwrap())
        .collect();
    assert!(exchange(address, &[b'x'; 3 * MAX_REQUEST]).starts_with("HTTP/1.0 431"));
    assert!(exchange(address, b"\r\n\r\n").starts_with("HTTP/1.0 400"));
    assert!(exchange(address, b"GET /healthz HTTP/1.1\r\n\r\n").ends_with("ok\n"));
    drop(idle);
}

#[test]
fn an_address_in_use_is_told_with_the_fix() {
    let listener = listen("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = listener.local_addr().unwrap();
    assert_eq!(
        listen(address).unwrap_err().to_string(),
        format!(
            "cannot listen on TCP {address} for metrics: address already in use; stop the other process, or choose another \
             metrics_port (0 for none)"
        )
    );
}
