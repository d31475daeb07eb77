//! `ztna-load`: traffic for measurements, from both ends of a relay. See `benches::load`.

use std::process::ExitCode;

use benches::count::Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn main() -> ExitCode {
    benches::load::main()
}
