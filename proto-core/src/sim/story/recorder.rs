//! The backends of a generated world.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use crate::backend::{FlowId, Refusal, Transport};
use crate::sim::BackendModel;

/// Backends that answer every payload with itself, and remember it.
#[derive(Debug, Default)]
pub(super) struct Recorder {
    pub(super) flows: BTreeMap<FlowId, SocketAddr>,
    pub(super) received: Vec<(SocketAddr, Vec<u8>)>,
}

impl BackendModel for Recorder {
    fn open(&mut self, flow: FlowId, _: Transport, address: SocketAddr) -> Result<(), Refusal> {
        self.flows.insert(flow, address);
        Ok(())
    }

    fn datagram(&mut self, flow: FlowId, payload: &[u8]) -> Vec<Vec<u8>> {
        let backend = self.flows.get(&flow).expect("a datagram on an open flow");
        self.received.push((*backend, payload.to_vec()));
        vec![payload.to_vec()]
    }

    fn take(&mut self, _: FlowId, bytes: &[u8]) -> usize {
        bytes.len()
    }

    fn fill(&mut self, _: FlowId, _: &mut [u8]) -> usize {
        0
    }

    fn half_close(&mut self, _: FlowId) {}

    fn is_finished(&self, _: FlowId) -> bool {
        true
    }

    fn close(&mut self, flow: FlowId) {
        self.flows.remove(&flow);
    }
}
