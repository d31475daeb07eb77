//! Reading and writing what a DATAGRAM carries: the first thing done to each, and the last.

use std::hint::black_box;
use std::net::SocketAddrV4;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use proto_core::id::ServiceId;
use proto_core::wire::control::{Candidate, CandidateKind, SignalingMessage};
use proto_core::wire::datagram::{
    Role, parse_from_client, parse_from_intermediate, routed_prefix, write_observed, write_register,
};
use proto_core::wire::framing::{Frames, write_frame};

fn datagrams(criterion: &mut Criterion) {
    let service = ServiceId::parse(b"service.example").expect("a name");
    let routed = [&routed_prefix(&service)[..], &[0x45; 1_200]].concat();
    let register = write_register(Role::Agent, &service);
    let observed = write_observed(SocketAddrV4::new([192, 0, 2, 1].into(), 4_433));
    let mut group = criterion.benchmark_group("datagram");
    group.throughput(Throughput::Elements(1));
    group.bench_function("parse routed", |bench| {
        bench.iter(|| parse_from_client(black_box(&routed)).is_ok())
    });
    group.bench_function("parse bare packet", |bench| {
        bench.iter(|| parse_from_client(black_box(&routed[17..])).is_ok());
    });
    group.bench_function("parse register", |bench| {
        bench.iter(|| parse_from_client(black_box(&register)).is_ok())
    });
    group.bench_function("parse observed", |bench| {
        bench.iter(|| parse_from_intermediate(black_box(&observed)).is_ok());
    });
    group.bench_function("write register", |bench| {
        bench.iter(|| write_register(Role::Agent, black_box(&service)));
    });
    group.finish();
}

fn signalling(criterion: &mut Criterion) {
    let candidate = Candidate {
        kind: CandidateKind::Host,
        address: ([192, 0, 2, 1], 4_434).into(),
        priority: 2_130_706_431,
        foundation: "host_192.0.2.1".into(),
        related: None,
    };
    let offer = SignalingMessage::CandidateOffer {
        session: 7,
        service: "service.example".into(),
        candidates: vec![candidate; 8],
    };
    let payload = offer.write().expect("a message");
    let frame = write_frame(&payload).expect("a frame");
    let mut group = criterion.benchmark_group("signalling");
    group.throughput(Throughput::Bytes(frame.len() as u64));
    group.bench_function("write offer of 8", |bench| {
        bench.iter(|| black_box(&offer).write())
    });
    group.bench_function("parse offer of 8", |bench| {
        bench.iter(|| SignalingMessage::parse(black_box(&payload)).is_ok());
    });
    group.bench_function("unframe", |bench| {
        let mut frames = Frames::new();
        bench.iter(|| {
            let mut input = black_box(&frame[..]);
            frames.read(&mut input).map(<[u8]>::len)
        });
    });
    group.finish();
}

criterion_group!(benches, datagrams, signalling);
criterion_main!(benches);
