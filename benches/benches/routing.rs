//! Where a packet goes (the registry, by service) and to whom its reply belongs (the flow table), with full tables.

use std::hint::black_box;
use std::net::SocketAddr;
use std::time::Instant;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use proto_core::config::IntermediateLimits;
use proto_core::id::ConnId;
use proto_core::registration::Registry;
use proto_core::rng::{Rng, Seed};
use proto_core::routing::flow::FlowTable;
use proto_core::routing::packet;
use proto_core::wire::datagram::Role;

const CLIENTS: u32 = 10_000;
const SERVICES: u32 = 1_000;
const FLOWS: u32 = 100_000;

fn client(index: u32) -> ConnId {
    ConnId {
        index,
        generation: index + 1,
    }
}

fn service(index: u32) -> String {
    format!("service-{index}.example")
}

fn registry(criterion: &mut Criterion) {
    let mut registry = Registry::new(
        IntermediateLimits::default().registry(),
        &mut Rng::new(&Seed([1; 32])),
    );
    for index in 0..SERVICES {
        registry.register(
            client(index),
            None,
            Role::Connector,
            service(index).as_bytes(),
            true,
        );
    }
    for index in SERVICES..CLIENTS {
        registry.register(
            client(index),
            None,
            Role::Agent,
            service(index % SERVICES).as_bytes(),
            true,
        );
    }
    let names: Vec<String> = (0..SERVICES).map(service).collect();
    let mut group = criterion.benchmark_group("registry of 10000 clients");
    group.throughput(Throughput::Elements(1));
    let mut index = SERVICES;
    let mut next = move || {
        index = if index + 1 < CLIENTS { index + 1 } else { SERVICES };
        index
    };
    group.bench_function("route by name", |bench| {
        bench.iter(|| {
            let index = next();
            registry
                .route(client(index), names[(index % SERVICES) as usize].as_bytes())
                .is_ok()
        });
    });
    group.bench_function("route implicitly", |bench| {
        bench.iter(|| registry.route_implicit(client(next())).is_ok())
    });
    group.finish();
}

/// A packet of the flow with this number: 100 ports of 1,000 agents.
fn packet_of(flow: u32) -> (ConnId, Vec<u8>) {
    let [.., high, low] = (flow / 100).to_be_bytes();
    let source = SocketAddr::from(([10, 90, high, low], 40_000 + (flow % 100) as u16));
    let mut out = Vec::new();
    assert!(packet::udp(
        source,
        ([10, 100, 0, 1], 7).into(),
        &[0x5a; 64],
        &mut out
    ));
    (client(flow / 100), out)
}

fn flows(criterion: &mut Criterion) {
    let now = Instant::now();
    let connector = client(5_000);
    let mut table = FlowTable::new(
        IntermediateLimits::default().flow_table(),
        &mut Rng::new(&Seed([2; 32])),
    );
    let mut requests: Vec<(ConnId, Vec<u8>)> = (0..FLOWS).map(packet_of).collect();
    for (agent, request) in &mut requests {
        table
            .outbound(*agent, connector, request, now)
            .expect("room for a flow");
    }
    let mut replies: Vec<Vec<u8>> = requests
        .iter()
        .map(|(_, request)| {
            let mut reply = request.clone();
            benches::packet::turn_around(&mut reply);
            reply
        })
        .collect();
    let mut group = criterion.benchmark_group("table of 100000 flows");
    group.throughput(Throughput::Elements(1));
    // One flow after the other would sit in the cache; a stride that meets all of them does not.
    let mut index = 0;
    let mut next = move || {
        index = (index + 7_919) % FLOWS as usize;
        index
    };
    group.bench_function("outbound, any flow", |bench| {
        bench.iter(|| {
            let (agent, request) = &mut requests[next()];
            table.outbound(*agent, connector, black_box(request), now).is_ok()
        });
    });
    group.bench_function("outbound, the same flow", |bench| {
        let (agent, mut request) = packet_of(0);
        bench.iter(|| {
            table
                .outbound(agent, connector, black_box(&mut request), now)
                .is_ok()
        });
    });
    group.bench_function("inbound, any flow", |bench| {
        bench.iter(|| {
            table
                .inbound(connector, black_box(&mut replies[next()]), now)
                .is_some()
        });
    });
    group.finish();
    criterion.bench_function("flow table/open and forget 100 flows of an agent", |bench| {
        bench.iter_batched(
            || (0..100).map(packet_of).collect::<Vec<_>>(),
            |mut packets| {
                for (agent, packet) in &mut packets {
                    let _ = table.outbound(*agent, client(6_000), packet, now);
                }
                table.remove(client(0));
            },
            BatchSize::SmallInput,
        );
    });
}

criterion_group!(benches, registry, flows);
criterion_main!(benches);
