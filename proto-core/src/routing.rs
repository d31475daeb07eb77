//! What travels inside the tunnel, and where it goes.
//!
//! [`packet`] reads, rewrites and builds single IP packets. Beside it stand the tables that decide who gets one: at an
//! agent, [`table`] finds the service of a destination; at the intermediate, [`flow`] finds the agent of a reply. They
//! leave the bytes to [`packet`]. At the ends of the tunnel, [`reassembly`] puts fragments together.

pub mod flow;
pub mod packet;
pub mod reassembly;
pub mod table;
