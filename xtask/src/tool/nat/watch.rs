//! How this host looks from outside, said again whenever that changes. It runs until it is ended.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::Result;

use super::{receive, socket};
use crate::args::Args;

/// Between two questions.
const PACE: Duration = Duration::from_millis(50);

pub(crate) fn main(args: &mut Args) -> Result<()> {
    let server: SocketAddr = args.required("--server")?;
    args.finish()?;
    let socket = socket()?;
    let mut last = String::new();
    let mut count = 0;
    loop {
        socket.send_to(b"tell me", server)?;
        let end = Instant::now() + PACE;
        while let Some((text, _)) = receive(&socket, end)? {
            if text != last {
                count += 1;
                println!("address {count} {text}");
                last = text;
            }
        }
    }
}
