//! Packets to be sent: what goes into them, in which order, and the books kept about it.

use super::Side;
use super::connection::{FakeConnection, Goodbye};
use super::frame::{self, STREAM_OVERHEAD};
use super::packet::{Head, PacketWriter, Space};
use super::seal::TAG_LEN;
use super::space::{Control, Keys, Sent};
use crate::quic::State;

/// Datagrams with Initial packets are at least this long (RFC 9000 §14.1).
pub(super) const INITIAL_LEN: usize = 1200;

/// Less room than this is not worth another coalesced packet.
const LEAST_ROOM: usize = 128;

/// What one packet has become.
struct Written {
    len: usize,
    eliciting: bool,
}

impl FakeConnection {
    /// Writes the next datagram; its length.
    pub(super) fn write_packets(&mut self, out: &mut [u8]) -> Option<usize> {
        let full = out.len().min(self.max_packet_len());
        let room = full.min(self.paths.budget());
        match self.state {
            State::Closed => return None,
            State::Closing => {
                let goodbye = self.goodbye.take()?;
                return self.write_goodbye(&goodbye, &mut out[..room]);
            }
            State::Handshaking if room < INITIAL_LEN => return None,
            State::Handshaking | State::Established => {}
        }
        let whole = room == self.max_packet_len();
        let last = Space::ALL.into_iter().rfind(|&space| self.wants_to_send(space))?;
        let (mut at, mut pad) = (0, false);
        for space in Space::ALL {
            if !self.wants_to_send(space) || room - at < LEAST_ROOM.min(room) {
                continue;
            }
            let is_last = space == last;
            let padded = |written: usize, pad: bool| {
                let left = room - at - written;
                (pad && (is_last || left < LEAST_ROOM)).then_some(INITIAL_LEN.saturating_sub(at))
            };
            let empty = at == 0;
            let Some(written) = self.write_one(space, &mut out[at..room], whole && empty, pad, padded) else {
                continue;
            };
            pad |= space == Space::Initial && (written.eliciting || self.side == Side::Client);
            at += written.len;
            if self.side == Side::Client && space == Space::Handshake {
                self.discard(Space::Initial);
            }
        }
        self.paths.on_sent(at);
        (at > 0).then_some(at)
    }

    fn wants_to_send(&self, space: Space) -> bool {
        let state = &self.spaces[space.index()];
        let usable = space != Space::Application || self.state == State::Established;
        if state.keys.is_none() || !usable {
            return false;
        }
        let data = state.crypto.wants_to_send()
            || !state.controls.is_empty()
            || state.streams.wants_to_send()
            || space == Space::Application && (self.ping || !self.outgoing.is_empty());
        state.ack_now || state.probes > 0 || data && self.recovery.has_room()
    }

    fn head<'a>(&self, space: Space, token: &'a [u8]) -> Option<(Head<'a>, Keys)> {
        let state = &self.spaces[space.index()];
        let scid = self.local_ids.first()?.cid;
        let head = Head {
            space,
            dcid: self.remote_id.cid,
            scid,
            token,
            number: state.next_number(),
        };
        Some((head, state.keys?))
    }

    /// Writes one packet. `padded` tells, from its length so far, to which length it is to be padded.
    fn write_one(
        &mut self,
        space: Space,
        out: &mut [u8],
        whole: bool,
        pad: bool,
        padded: impl Fn(usize, bool) -> Option<usize>,
    ) -> Option<Written> {
        let token = std::mem::take(&mut self.token);
        let begun = self.head(space, &token).and_then(|(head, keys)| {
            let number = head.number;
            Some((PacketWriter::begin(out, &head)?, number, keys))
        });
        self.token = token;
        let (mut packet, number, keys) = begun?;

        let state = &self.spaces[space.index()];
        // A challenge to a new address has little room: a long ACK in front of it would keep it from ever being sent.
        let urgent = !whole && matches!(state.controls.front(), Some(Control::PathChallenge(_)));
        let acknowledged = (state.ack_now || state.unacknowledged > 0)
            && !urgent
            && put(&mut packet, |writer| frame::write_ack(writer, &state.received));
        let before = packet.frames().len();
        let mut controls = Vec::new();
        if self.recovery.has_room() || state.probes > 0 {
            self.write_eliciting(space, &mut packet, whole, &mut controls);
        }
        let eliciting = packet.frames().len() > before;
        // An ACK that nobody waits for yet travels alone only to make room for a large DATAGRAM.
        let alone = self.spaces[space.index()].ack_now || !self.outgoing.is_empty();
        if packet.is_empty() || !eliciting && !alone {
            return None;
        }
        let pad = pad || space == Space::Initial && (eliciting || self.side == Side::Client);
        let challenge = controls
            .iter()
            .any(|control| matches!(control, Control::PathChallenge(_)));
        if challenge {
            packet.pad_to(INITIAL_LEN);
        } else if let Some(len) = padded(packet.frames().len() + TAG_LEN, pad) {
            packet.pad_to(len);
        }
        let (tag, sealed) = packet.finish(&keys.seal);
        let len = sealed + TAG_LEN;
        out[sealed..len].copy_from_slice(&tag);

        self.stats.sent += 1;
        let now = self.now;
        let sent = eliciting.then_some(Sent {
            number,
            at: now,
            size: len,
            controls,
        });
        self.spaces[space.index()].on_sent(sent, acknowledged, now);
        if eliciting {
            self.recovery.on_sent(len);
            if !self.spoke_since_heard {
                self.spoke_since_heard = true;
                self.active_at = now;
            }
        }
        Some(Written { len, eliciting })
    }

    /// Writes handshake bytes, control frames, a PING and DATAGRAMs, as far as they fit.
    fn write_eliciting(
        &mut self,
        space: Space,
        packet: &mut PacketWriter<'_>,
        whole: bool,
        sent: &mut Vec<Control>,
    ) {
        let start = packet.frames().len();
        let state = &mut self.spaces[space.index()];
        // Type, offset and length of a CRYPTO frame take at most 7 bytes.
        while let Some((offset, chunk)) = state.crypto.next_chunk(packet.frames().room().saturating_sub(7)) {
            let (from, to) = (offset, offset + chunk.len());
            if !put(packet, |writer| frame::write_crypto(writer, offset as u64, chunk)) {
                state.crypto.requeue(from, to);
                break;
            }
            sent.push(Control::Crypto { start: from, end: to });
        }
        while let Some(&control) = state.controls.front() {
            let fits = put(packet, |writer| match control {
                Control::Crypto { .. } => Some(()),
                Control::HandshakeDone => frame::write_handshake_done(writer),
                Control::NewCid { sequence, cid, token } => {
                    frame::write_new_cid(writer, sequence, &cid, &token)
                }
                Control::RetireCid { sequence } => frame::write_retire_cid(writer, sequence),
                Control::PathChallenge(data) => frame::write_path_challenge(writer, &data),
                Control::PathResponse(data) => frame::write_path_response(writer, &data),
                Control::Stream { .. } => Some(()),
                Control::MaxStreamData { stream } => {
                    frame::write_max_stream_data(writer, stream, state.streams.limit(stream))
                }
            });
            if !fits {
                break;
            }
            state.controls.pop_front();
            sent.push(control);
        }
        if space == Space::Application {
            if self.ping && put(packet, frame::write_ping) {
                self.ping = false;
            }
            self.write_streams(packet, sent);
            self.write_datagrams(packet, whole);
        }
        let probes = self.spaces[space.index()].probes;
        if packet.frames().len() == start && probes > 0 {
            put(packet, frame::write_ping);
        }
    }

    fn write_streams(&mut self, packet: &mut PacketWriter<'_>, sent: &mut Vec<Control>) {
        let streams = &mut self.spaces[Space::Application.index()].streams;
        let room = |packet: &mut PacketWriter<'_>| packet.frames().room().saturating_sub(STREAM_OVERHEAD);
        while let Some((stream, start, data)) = streams.next_chunk(room(packet)) {
            let end = start + data.len() as u64;
            if !put(packet, |writer| frame::write_stream(writer, stream, start, &data)) {
                streams.requeue(stream, start, end);
                break;
            }
            sent.push(Control::Stream { stream, start, end });
        }
    }

    fn write_datagrams(&mut self, packet: &mut PacketWriter<'_>, whole: bool) {
        while let Some(next) = self.outgoing.front() {
            if put(packet, |writer| frame::write_datagram(writer, next)) {
                self.outgoing.pop_front();
            } else if whole && packet.is_empty() {
                // Not even an empty packet holds it: the peer's id has become longer since it was queued.
                self.outgoing.pop_front();
            } else {
                break;
            }
        }
    }

    /// Writes a CONNECTION_CLOSE in every space whose keys the peer may have (RFC 9000 §10.2.3).
    fn write_goodbye(&mut self, goodbye: &Goodbye, out: &mut [u8]) -> Option<usize> {
        let mut at = 0;
        for space in Space::ALL {
            // Only an established connection says an application's goodbye; handshake packets must not carry it.
            let suits = if goodbye.application {
                space == Space::Application
            } else {
                self.suits_alert(space)
            };
            let token = std::mem::take(&mut self.token);
            let begun = self
                .head(space, &token)
                .filter(|_| suits)
                .and_then(|(head, keys)| Some((PacketWriter::begin(&mut out[at..], &head)?, keys)));
            self.token = token;
            let Some((mut packet, keys)) = begun else { continue };
            let Goodbye {
                application,
                code,
                reason,
            } = goodbye;
            if !put(&mut packet, |writer| {
                frame::write_close(writer, *application, *code, reason)
            }) {
                continue;
            }
            if space == Space::Initial && self.side == Side::Client {
                packet.pad_to(INITIAL_LEN);
            }
            let (tag, sealed) = packet.finish(&keys.seal);
            out[at + sealed..at + sealed + TAG_LEN].copy_from_slice(&tag);
            at += sealed + TAG_LEN;
            let now = self.now;
            self.spaces[space.index()].on_sent(None, false, now);
            self.stats.sent += 1;
        }
        self.paths.on_sent(at);
        (at > 0).then_some(at)
    }

    /// Whether a transport error is told in this space: once the application's keys are in use, there alone.
    fn suits_alert(&self, space: Space) -> bool {
        let confirmed = self.spaces[Space::Handshake.index()].discarded;
        (space == Space::Application) == confirmed
    }
}

/// Writes one frame or nothing of it; whether it fitted.
fn put(
    packet: &mut PacketWriter<'_>,
    write: impl FnOnce(&mut super::codec::Writer<'_>) -> Option<()>,
) -> bool {
    let writer = packet.frames();
    let mark = writer.len();
    let fits = write(writer).is_some();
    if !fits {
        writer.rewind(mark);
    }
    fits
}
