//! Inner IP packets: reading, translating, checking and answering them.

use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use proto_core::routing::packet::{self, rewrite_source, verify_checksums};

fn udp(source: IpAddr, destination: IpAddr, payload: usize) -> Vec<u8> {
    let mut out = Vec::new();
    let (source, destination) = (SocketAddr::new(source, 40_000), SocketAddr::new(destination, 53));
    assert!(packet::udp(source, destination, &vec![0x5a; payload], &mut out));
    out
}

fn packets(criterion: &mut Criterion) {
    let v4 = udp(
        Ipv4Addr::new(10, 0, 0, 1).into(),
        Ipv4Addr::new(10, 100, 0, 1).into(),
        1_172,
    );
    let v6 = udp(Ipv6Addr::from(1).into(), Ipv6Addr::from(2).into(), 1_152);
    let mut group = criterion.benchmark_group("packet of 1200 bytes");
    group.throughput(Throughput::Elements(1));
    for (name, bytes) in [("v4", &v4), ("v6", &v6)] {
        group.bench_function(format!("parse {name}"), |bench| {
            bench.iter(|| packet::parse(black_box(bytes)).is_ok())
        });
        let parsed = packet::parse(bytes).expect("a packet");
        group.bench_function(format!("verify checksums {name}"), |bench| {
            bench.iter(|| verify_checksums(black_box(&parsed), black_box(bytes)));
        });
    }
    let mut rewritten = v4.clone();
    let mut last = 0_u8;
    group.bench_function("rewrite source v4", |bench| {
        bench.iter(|| {
            last = last.wrapping_add(1);
            rewrite_source(black_box(&mut rewritten), Ipv4Addr::new(10, 0, 1, last).into())
        });
    });
    let parsed = packet::parse(&v4).expect("a packet");
    let mut answer = Vec::new();
    group.bench_function("answer too big", |bench| {
        bench.iter(|| packet::too_big(black_box(&v4), &parsed, 1_280, &mut answer));
    });
    group.finish();
}

criterion_group!(benches, packets);
criterion_main!(benches);
