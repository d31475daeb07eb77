//! The agent without a tunnel interface as its users meet it: real processes on loopback, no root.
#![expect(clippy::unwrap_used, reason = "a story that cannot be told fails")]

#[path = "../../program/stories/process.rs"]
#[expect(dead_code, reason = "not every story needs everything")]
mod process;

#[path = "rootless/connect.rs"]
mod connect;
#[path = "rootless/crowd.rs"]
mod crowd;
#[path = "rootless/forward.rs"]
mod forward;
#[path = "rootless/settings.rs"]
mod settings;
#[path = "rootless/socks.rs"]
mod socks;
#[path = "rootless/ssh.rs"]
mod ssh;
#[path = "rootless/stage.rs"]
mod stage;

/// Not a story: the executables of other packages cannot be named here, so this test, started as a process of its own, is
/// one of those programs.
#[test]
fn other_program() {
    stage::be_another();
}
