//! Everything that is not a datagram of ours, fired at one address: the same bytes at every run.
//!
//! Prints `fired N KIND` for each kind. Source port 0 goes through a raw socket, because the kernel gives no such port out.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use socket2::{Domain, Protocol, Socket, Type};

use crate::args::Args;

/// A kind of shot.
type Kind = (&'static str, fn(&mut Dice) -> Vec<u8>);

const KINDS: &[Kind] = &[
    ("empty", |_| Vec::new()),
    ("single byte", |dice| dice.bytes(1)),
    ("junk", |dice| {
        let length = dice.below(1400);
        dice.bytes(length)
    }),
    ("large junk", |dice| dice.bytes(8000)),
    ("junk Initial", |dice| initial(dice, 1)),
    ("wrong version", |dice| initial(dice, 0xbaba_baba)),
    ("version negotiation", |dice| initial(dice, 0)),
    ("short Initial", |dice| {
        let length = dice.below(60);
        let mut shot = initial(dice, 1);
        shot.truncate(length);
        shot
    }),
    ("Initial with long ids", |dice| {
        let mut shot = initial(dice, 1);
        if let Some(length) = shot.get_mut(5) {
            *length = 255;
        }
        shot
    }),
    ("Initial with a junk token", |dice| {
        // Ids of 8 bytes, then a token length that is present, and then one that runs past the end.
        let mut shot = initial(dice, 1);
        let token = if dice.below(2) == 0 {
            [0x40, 0x40]
        } else {
            [0x7f, 0xff]
        };
        if let Some(place) = shot.get_mut(23..25) {
            place.copy_from_slice(&token);
        }
        shot
    }),
    ("handshake packet of nobody", |dice| {
        let mut shot = initial(dice, 1);
        if let Some(first) = shot.first_mut() {
            *first = 0xe0;
        }
        shot
    }),
    ("short header of nobody", |dice| {
        let length = 21 + dice.below(1200);
        let mut shot = dice.bytes(length);
        if let Some(first) = shot.first_mut() {
            *first = 0x40 | *first & 0x3f;
        }
        shot
    }),
    ("raw check", |dice| {
        let mut shot = vec![0x5a, 0, 0, 0, 0];
        shot.extend(dice.bytes(21));
        shot
    }),
    ("raw check, cut", |dice| {
        let length = dice.below(25);
        let mut shot = vec![0x5a];
        shot.extend(dice.bytes(length));
        shot
    }),
    ("raw keepalive", |dice| {
        let mut shot = vec![0x5a, 0x10];
        shot.extend(dice.bytes(4));
        shot
    }),
    ("channel frame", |dice| prefixed(dice, 0x21)),
    ("connectivity check", |dice| prefixed(dice, 0x22)),
    ("routed packet without QUIC", |dice| prefixed(dice, 0x2f)),
    ("registration without QUIC", |_| b"\x10\x04echo".to_vec()),
    ("IP packet without QUIC", |dice| prefixed(dice, 0x45)),
];

pub(super) fn main(args: &mut Args) -> Result<()> {
    let to: SocketAddr = args.required("--to")?;
    let count: u32 = args.value("--count")?.unwrap_or(100);
    args.finish()?;
    let IpAddr::V4(address) = to.ip() else {
        bail!("only IPv4 has this cannon");
    };
    let plain = UdpSocket::bind("0.0.0.0:0")?;
    let raw = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::UDP)).context("raw socket")?;
    let raw_target = SocketAddr::from((address, 0)).into();
    let mut dice = Dice(0x5eed);
    let mut fired = 0;
    for (name, shot) in KINDS {
        let mut gone: u32 = 0;
        for _ in 0..count {
            let payload = shot(&mut dice);
            gone += u32::from(plain.send_to(&payload, to).is_ok());
            gone += u32::from(raw.send_to(&portless(&payload, to.port()), &raw_target).is_ok());
            // Paced, so that the shots arrive instead of filling one socket buffer.
            thread::sleep(Duration::from_micros(200));
        }
        println!("fired {gone} {name}");
        fired += gone;
    }
    println!("fired {fired} in all");
    Ok(())
}

/// A UDP header with source port 0 and no checksum, which IPv4 allows.
fn portless(payload: &[u8], port: u16) -> Vec<u8> {
    let length = u16::try_from(payload.len() + 8).unwrap_or(u16::MAX);
    let mut datagram = vec![0, 0];
    datagram.extend(port.to_be_bytes());
    datagram.extend(length.to_be_bytes());
    datagram.extend([0, 0]);
    datagram.extend_from_slice(payload);
    datagram
}

/// A long header of the Initial type with ids of 8 bytes, no token, and 1200 bytes of nothing.
fn initial(dice: &mut Dice, version: u32) -> Vec<u8> {
    let mut shot = vec![0xc0 | dice.bytes(1).first().copied().unwrap_or_default() & 0x0f];
    shot.extend(version.to_be_bytes());
    for _ in 0..2 {
        shot.push(8);
        shot.extend(dice.bytes(8));
    }
    shot.push(0);
    let rest = u16::try_from(1200 - shot.len() - 2).unwrap_or_default();
    shot.extend((0x4000 | rest).to_be_bytes());
    shot.extend(dice.bytes(rest.into()));
    shot
}

fn prefixed(dice: &mut Dice, first: u8) -> Vec<u8> {
    let length = dice.below(200);
    let mut shot = vec![first];
    shot.extend(dice.bytes(length));
    shot
}

/// Numbers that look random and are the same every time.
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.next()).unwrap_or_default() % limit
    }

    fn bytes(&mut self, length: usize) -> Vec<u8> {
        std::iter::repeat_with(|| self.next().to_le_bytes())
            .flatten()
            .take(length)
            .collect()
    }
}

#[cfg(test)]
mod tests;
