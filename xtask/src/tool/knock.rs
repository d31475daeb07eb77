//! Tries every door: a UDP datagram to, and a TCP connection with, each port of a range; prints how many answered.
//!
//! Output: `knocked N doors, N open`, one line `open: PROTOCOL PORT` for each that answered in any way.

use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::thread;
use std::time::Duration;

use anyhow::Result;

use crate::args::Args;

const WAIT: Duration = Duration::from_millis(400);

pub(super) fn main(args: &mut Args) -> Result<()> {
    let to: IpAddr = args.required("--to")?;
    let ports: String = args.required("--ports")?;
    args.finish()?;
    let ports: Vec<u16> = ports.split(',').map(str::parse).collect::<Result<_, _>>()?;
    let doors: Vec<_> = ports
        .iter()
        .map(|&port| thread::spawn(move || knock(SocketAddr::new(to, port))))
        .collect();
    let (mut knocked, mut open) = (0, 0);
    for door in doors {
        knocked += 2;
        for answer in door.join().unwrap_or_default() {
            println!("open: {answer}");
            open += 1;
        }
    }
    println!("knocked {knocked} doors, {open} open");
    Ok(())
}

fn knock(door: SocketAddr) -> Vec<String> {
    let mut open = Vec::new();
    if TcpStream::connect_timeout(&door, WAIT).is_ok() {
        open.push(format!("tcp {}", door.port()));
    }
    let udp = || -> std::io::Result<usize> {
        let socket = UdpSocket::bind("0.0.0.0:0")?;
        socket.connect(door)?;
        socket.set_read_timeout(Some(WAIT))?;
        socket.send(b"anybody there?")?;
        socket.recv(&mut [0; 64])
    };
    if udp().is_ok() {
        open.push(format!("udp {}", door.port()));
    }
    open
}
