//! Two ends and a network between them, in virtual time.

mod harness;
mod path;
mod transfer;
