//! A connector without backends: every packet is counted, and sent back if wanted; frames of relay channels are counted.

use std::cell::RefCell;
use std::io;
use std::os::fd::AsFd as _;
use std::time::{Duration, Instant};

use proto_core::id::ServiceId;
use proto_core::quic::Datagram;
use proto_core::wire::channel::PREFIX_LEN;
use proto_core::wire::datagram::Role;
use serde_json::json;

use super::Relay;
use super::control::{Command, Control, LOOK, answer, misplaced};
use super::link::Link;
use super::tally::Tally;
use crate::client::Speaks;
use crate::packet::{HEADERS, Mark, turn_around};
use crate::socket::wait_readable;

pub(super) fn run(relay: &Relay, (echo, speaks): (bool, Speaks), lifetime: Duration) -> io::Result<()> {
    let control = Control::new(lifetime);
    let service = ServiceId::parse(relay.service.as_bytes()).map_err(io::Error::other)?;
    let mut link = Link::new(relay, (Role::Connector, speaks), vec![service], 4)?;
    link.settle(1)?;
    answer(&json!({ "ready": 1 }))?;
    let tally = RefCell::new(Tally::default());
    let mut looked = Instant::now();
    let mut pinged = looked;
    loop {
        let mut on_packet = |mut packet: Datagram| {
            if let Some(mark) = packet.get(HEADERS..).and_then(Mark::read) {
                tally.borrow_mut().count(mark, Instant::now());
            }
            if !echo {
                return None;
            }
            turn_around(packet.as_mut());
            Some(packet)
        };
        let mut on_frame = |frame: &[u8]| {
            if let Some(mark) = frame.get(PREFIX_LEN..).and_then(Mark::read) {
                tally.borrow_mut().count(mark, Instant::now());
            }
        };
        let moved = link.turn_with_frames(&mut on_packet, &mut on_frame)?;
        if !moved {
            wait_readable(&[link.as_fd()], link.idle_for(LOOK))?;
        }
        if looked.elapsed() < LOOK {
            continue;
        }
        looked = Instant::now();
        if pinged.elapsed() > Duration::from_secs(5) {
            pinged = looked;
            link.client.ping_next();
        }
        match control.next()? {
            None => {}
            Some(Command::Take) => answer(&tally.borrow_mut().take())?,
            Some(Command::End) => return link.close(),
            Some(command) => return Err(misplaced(command)),
        }
    }
}
