//! curl with nginx: 100 MB by HTTP/1.1, and by HTTP/2 over TLS, several at once over one connection.

use std::fs;

use anyhow::{Result, ensure};

use super::{FILES, FILES_TLS, backend, client, wait_for_port};
use crate::lab::process::Process;
use crate::lab::world::{PATIENCE, World};
use crate::netlab::Test;
use crate::tool::content;

pub(super) const TESTS: &[Test] = &[
    ("curl_100_mb_http_1_1", one_connection),
    ("curl_100_mb_http_2", two),
];

const LARGE: u64 = 100_000_000;
/// One of four that share a connection.
const PART: u64 = 2_000_000;

fn nginx(world: &World) -> Result<Process> {
    let folder = world.folder().join("nginx");
    if !folder.exists() {
        fs::create_dir(&folder)?;
        content::write(&mut fs::File::create(folder.join("large"))?, LARGE)?;
        content::write(&mut fs::File::create(folder.join("part"))?, PART)?;
        let claims = ["--server".to_owned(), FILES_TLS.address.to_string()];
        world.programs.issue(&world.pki(), "nginx", &claims)?;
    }
    let (here, pki) = (folder.display(), world.pki());
    let (plain, tls, address) = (FILES.port, FILES_TLS.port, FILES.backend);
    let config = format!(
        "daemon off; master_process off; user root; error_log stderr notice; pid {here}/pid;
events {{ worker_connections 256; }}
http {{
  access_log off; client_max_body_size 0; sendfile on;
  client_body_temp_path {here}/body; proxy_temp_path {here}/proxy; fastcgi_temp_path {here}/fastcgi;
  uwsgi_temp_path {here}/uwsgi; scgi_temp_path {here}/scgi;
  ssl_certificate {pki}/nginx.pem; ssl_certificate_key {pki}/nginx.key;
  server {{ listen {address}:{plain}; listen {address}:{tls} ssl http2; root {here}; }}
}}
",
        pki = pki.display(),
    );
    let config = world.write_text("nginx.conf", &config)?;
    let words = ["nginx", "-c", &config.display().to_string(), "-e", "stderr"];
    let nginx = backend(world, "nginx", &words, "using the \"epoll\" event method")?;
    wait_for_port(world, tls, PATIENCE)?;
    Ok(nginx)
}

fn one_connection(world: &mut World) -> Result<()> {
    let _nginx = nginx(world)?;
    let down = world.download(1, &format!("http://{}:{}/large", FILES.address, FILES.port))?;
    ensure!(
        down.bytes == LARGE && down.digest == content::digest(LARGE),
        "other bytes came down: {down:?}"
    );
    world.note(format!("{:.0} Mbit/s", down.rate()));
    Ok(())
}

fn two(world: &mut World) -> Result<()> {
    let _nginx = nginx(world)?;
    let base = format!("https://{}:{}", FILES_TLS.address, FILES_TLS.port);
    let ca = world.pki().join("ca.pem").display().to_string();
    let common = [
        "curl",
        "--silent",
        "--show-error",
        "--fail",
        "--http2",
        "--cacert",
        &ca,
    ];
    let folder = world.folder().to_path_buf();
    let large = folder.join("h2-large").display().to_string();
    let url = format!("{base}/large");
    let ask = ["--write-out", "%{http_version}", "--output", &large, &url];
    let version = client(world, 120, &[&common[..], &ask].concat())?;
    ensure!(version == "2", "it spoke HTTP {version}");
    ensure!(
        super::digest(large.as_ref())? == content::digest(LARGE),
        "other bytes came down"
    );
    fs::remove_file(&large)?;

    let names: Vec<String> = (0..4)
        .map(|part| folder.join(format!("h2-part-{part}")).display().to_string())
        .collect();
    let url = format!("{base}/part");
    let mut words = [&common[..], &["--parallel", "--write-out", "%{num_connects} "]].concat();
    for name in &names {
        words.extend(["--output", name, &url]);
    }
    let connects = client(world, 60, &words)?;
    world.note(format!("four at once, connections made by each: {connects}"));
    for name in &names {
        ensure!(
            super::digest(name.as_ref())? == content::digest(PART),
            "{name}: other bytes came down"
        );
    }
    Ok(())
}
