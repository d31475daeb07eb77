//! Two ends and a network between them, in virtual time.

mod congestion;
mod generated;
mod goodput;
mod harness;
mod junk;
mod mechanisms;
mod path;
mod transfer;
