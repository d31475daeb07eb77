//! What travels inside the tunnel, and where it goes.
//!
//! [`packet`] reads, rewrites and builds single IP packets. Tables that decide which peer gets a packet live beside
//! it and know nothing of bytes.

pub mod flow;
pub mod packet;
pub mod table;
