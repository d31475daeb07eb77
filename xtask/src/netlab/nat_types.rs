//! The translators of the laboratory, proved with a plain prober before any program is judged behind them.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use super::{Ground, Test};
use crate::lab::nat::{Nat, can_meet};
use crate::lab::neighbourhood::{Neighbourhood, SECOND, Side, Which};
use crate::lab::process::Process;
use crate::lab::programs::Programs;
use crate::lab::scratch::Scratch;
use crate::lab::site::INTERMEDIATE;
use crate::lab::world::PATIENCE;
use crate::tool::pace::Account;

pub(super) const TESTS: &[Test<Prober>] = &[
    ("open", |prober| classify(prober, Nat::Open)),
    ("full_cone", |prober| classify(prober, Nat::FullCone)),
    ("address_restricted", |prober| {
        classify(prober, Nat::AddressRestricted)
    }),
    ("port_restricted", |prober| classify(prober, Nat::PortRestricted)),
    ("linux", |prober| classify(prober, Nat::Linux)),
    ("linux_guarded", |prober| classify(prober, Nat::LinuxGuarded)),
    ("address_dependent", |prober| {
        classify(prober, Nat::AddressDependent)
    }),
    ("symmetric", |prober| classify(prober, Nat::Symmetric)),
    ("sequential", |prober| classify(prober, Nat::Sequential)),
    ("cgnat", |prober| classify(prober, Nat::CarrierGrade)),
    ("cgnat_symmetric", |prober| {
        classify(prober, Nat::CarrierGradeSymmetric)
    }),
    ("short_mappings", short_mappings),
    ("udp_blocked", |prober| classify(prober, Nat::UdpBlocked)),
    ("round_trips_of_20_ms", round_trips),
    ("an_echo_shows_its_way_and_a_cut_its_gap", pace),
    ("a_cut_is_of_the_direct_path_and_one_way", cuts),
    ("a_router_that_starts_again_forgets", rebinding),
    ("who_can_meet", pairs),
    ("early_probes_poison_a_plain_linux_router", poisoning),
];

/// The reflector's sockets, in the order in which the prober wants them.
const PORTS: [u16; 2] = [3478, 3479];

/// Where these tests stand.
#[derive(Debug)]
pub(super) struct Prober {
    programs: Programs,
    scratch: Scratch,
    notes: Vec<String>,
    meetings: u32,
}

impl Ground for Prober {
    fn last_words(&self) -> String {
        String::new()
    }

    fn take_notes(&mut self) -> Vec<String> {
        std::mem::take(&mut self.notes)
    }
}

impl Prober {
    pub(super) fn new(programs: Programs, scratch: Scratch) -> Self {
        Self {
            programs,
            scratch,
            notes: Vec::new(),
            meetings: 0,
        }
    }

    fn folder(&self) -> &Path {
        self.scratch.path()
    }

    /// Two translators and a reflector.
    fn stage(&self, a: Nat, b: Nat) -> Result<(Neighbourhood, Process)> {
        let neighbourhood = Neighbourhood::new(a, b, &self.programs, self.folder())?;
        let mut reflector = self.start(&neighbourhood.relay, "nat-reflector", &["--bind", &servers()])?;
        reflector.wait_for("ready on", PATIENCE)?;
        Ok((neighbourhood, reflector))
    }

    fn start(
        &self,
        namespace: &crate::lab::namespace::Namespace,
        tool: &str,
        words: &[&str],
    ) -> Result<Process> {
        let mut command = namespace.command(self.programs.instruments());
        command.args(["tool", tool]).args(words);
        Process::start(tool, self.folder(), &mut command)
    }

    fn begin_to_ask(&self, side: &Side, words: &[&str]) -> Result<Process> {
        let servers = servers();
        let words = [&["--servers", servers.as_str()], words].concat();
        self.start(&side.host, "nat-classify", &words)
    }

    fn answer(mut process: Process) -> Result<String> {
        let status = process.wait(PATIENCE)?;
        ensure!(status.success(), "{}", process.last_words());
        Ok(process.log().trim().to_owned())
    }

    /// Both sides start at once; says what came of it on each.
    fn meet(&mut self, neighbourhood: &Neighbourhood, a: &[&str], b: &[&str]) -> Result<[String; 2]> {
        let server = format!("{INTERMEDIATE}:{}", PORTS[0]);
        // Names of their own, so that nobody meets who was here before.
        self.meetings += 1;
        let (name, peer) = (format!("a{}", self.meetings), format!("b{}", self.meetings));
        let start = |side: &Side, name, peer, more: &[&str]| {
            let words = ["--server", &server, "--name", name, "--peer", peer];
            self.start(&side.host, "nat-meet", &[&words, more].concat())
        };
        let mut both = [
            start(&neighbourhood.a, &name, &peer, a)?,
            start(&neighbourhood.b, &peer, &name, b)?,
        ];
        for process in &mut both {
            let status = process.wait(PATIENCE)?;
            ensure!(status.success(), "{}", process.last_words());
        }
        Ok(both.map(|process| process.log().trim().to_owned()))
    }
}

fn servers() -> String {
    let sockets =
        [INTERMEDIATE, SECOND].map(|address| PORTS.map(|port| format!("{address}:{port}")).join(","));
    sockets.join(",")
}

/// Found from outside and inside to be what the table says, on either side of the neighbourhood.
fn classify(prober: &mut Prober, nat: Nat) -> Result<()> {
    let (neighbourhood, _reflector) = prober.stage(nat, nat)?;
    let expected = nat
        .behaviour()
        .map_or_else(|| "no UDP".to_owned(), |behaviour| behaviour.to_string());
    let asked = [
        prober.begin_to_ask(&neighbourhood.a, &[])?,
        prober.begin_to_ask(&neighbourhood.b, &[])?,
    ];
    for process in asked {
        let found = Prober::answer(process)?;
        ensure!(found == expected, "{found}, not {expected}");
    }
    prober.notes.push(expected);
    Ok(())
}

fn short_mappings(prober: &mut Prober) -> Result<()> {
    classify(prober, Nat::ShortMappings)?;
    let (neighbourhood, _reflector) = prober.stage(Nat::ShortMappings, Nat::PortRestricted)?;
    let mut asked = Vec::new();
    for (side, millis, lives) in [
        (&neighbourhood.a, "1500", true),
        (&neighbourhood.a, "5500", false),
        (&neighbourhood.b, "5500", true),
    ] {
        let process = prober.begin_to_ask(side, &["--lifetime", millis])?;
        asked.push((side.nat, process, lives));
    }
    for (nat, process, lives) in asked {
        let found = Prober::answer(process)?;
        ensure!(found.ends_with(&format!("lived={lives}")), "{nat}: {found}");
        prober.notes.push(format!("{nat}: {found}"));
    }
    Ok(())
}

/// The smallest round trip that `ping` finds from a host, in milliseconds.
fn ping(prober: &Prober, side: &Side, to: std::net::Ipv4Addr) -> Result<f64> {
    let mut command = side.host.command("ping");
    command.args(["-n", "-c", "5", "-i", "0.05", "-W", "3", &to.to_string()]);
    let mut process = Process::start("ping", prober.folder(), &mut command)?;
    process.wait(PATIENCE)?;
    let log = process.log();
    let fields = log.split_once("mdev = ").context("no answers")?.1;
    let smallest = fields.split('/').next().context("no figures")?;
    Ok(smallest.parse()?)
}

fn round_trips(prober: &mut Prober) -> Result<()> {
    let (mut neighbourhood, _reflector) = prober.stage(Nat::Open, Nat::Open)?;
    neighbourhood.lengthen("")?;
    for (what, side, to) in [
        ("a", &neighbourhood.a, INTERMEDIATE),
        ("b", &neighbourhood.b, SECOND),
        ("d", &neighbourhood.a, neighbourhood.b.outer),
    ] {
        let found = ping(prober, side, to)?;
        // A wire is never early. How late it is depends on this machine; the smallest of five is a fair sight of it.
        ensure!((20.0..30.0).contains(&found), "{what} is {found} ms");
        prober.notes.push(format!("{what} = {found} ms"));
    }
    Ok(())
}

/// With a relay of one rule, because what is in doubt here is the instrument.
fn pace(prober: &mut Prober) -> Result<()> {
    let (mut neighbourhood, _reflector) = prober.stage(Nat::Open, Nat::Open)?;
    neighbourhood.lengthen("")?;
    let (relay, b) = (&neighbourhood.relay, &neighbourhood.b);
    relay.sysctl("net.ipv4.ip_forward", "1")?;
    relay.nft(&format!(
        "table ip relay {{
           chain pre {{
             type nat hook prerouting priority dstnat; policy accept;
             udp dport 7 dnat to {}
           }}
           chain post {{
             type nat hook postrouting priority srcnat; policy accept;
             udp dport 7 masquerade
           }}
         }}
",
        b.outer
    ))?;
    let _echo = {
        let mut echo = prober.start(&b.host, "udp-echo", &["--bind", "0.0.0.0:7"])?;
        echo.wait_for("ready on", PATIENCE)?;
        echo
    };
    let account = |to: std::net::Ipv4Addr, meanwhile: &dyn Fn() -> Result<()>| -> Result<Account> {
        let to = format!("{to}:7");
        let words = ["--to", to.as_str(), "--quick-below", "30"];
        let mut pace = prober.start(&neighbourhood.a.host, "udp-pace", &words)?;
        pace.wait_for("first reply after", PATIENCE)?;
        pace.say("mark here")?;
        meanwhile()?;
        pace.say("tell here")?;
        let (line, _) = pace.wait_for("here account ", PATIENCE)?;
        line.parse()
    };
    let wait = || {
        std::thread::sleep(Duration::from_millis(500));
        Ok(())
    };
    let direct = account(b.outer, &wait)?;
    ensure!(direct.quick > 0 && direct.wrong == 0, "{direct:?}");
    let relayed = account(INTERMEDIATE, &wait)?;
    ensure!(relayed.quick == 0 && relayed.slow > 0, "{relayed:?}");
    let cut = account(b.outer, &|| {
        neighbourhood.cut(Which::B)?;
        wait()?;
        neighbourhood.heal()?;
        wait()
    })?;
    ensure!(cut.gap_us > 500_000, "{cut:?}");
    // A cut of what the two say to each other is none of what they say to the relay.
    neighbourhood.cut(Which::A)?;
    neighbourhood.cut(Which::B)?;
    let relayed = account(INTERMEDIATE, &wait)?;
    ensure!(relayed.slow > 0, "{relayed:?}");
    prober.notes.push(format!(
        "gaps: {} us healthy, {} us with a cut of 500 ms",
        direct.gap_us, cut.gap_us
    ));
    Ok(())
}

fn cuts(prober: &mut Prober) -> Result<()> {
    let (neighbourhood, _reflector) = prober.stage(Nat::FullCone, Nat::FullCone)?;
    let mut opens = |what: &str, expected: bool| -> Result<()> {
        let said = prober.meet(&neighbourhood, &["--patience", "500"], &["--patience", "500"])?;
        let open = said.iter().all(|line| line.starts_with("open"));
        ensure!(open == expected, "{what}: {said:?}");
        Ok(())
    };
    opens("healthy", true)?;
    for from in [Which::A, Which::B] {
        let before = neighbourhood.direct_packets()?;
        neighbourhood.cut(from)?;
        // The two still learn each other's address, so the way to the relay is there.
        opens("cut", false)?;
        let after = neighbourhood.direct_packets()?;
        ensure!(
            after.iter().zip(before).all(|(after, before)| *after > before),
            "nobody tried: {before:?} {after:?}"
        );
        neighbourhood.heal()?;
        opens("healed", true)?;
    }
    Ok(())
}

/// With random ports the same socket has another outer port afterwards.
fn rebinding(prober: &mut Prober) -> Result<()> {
    let (neighbourhood, _reflector) = prober.stage(Nat::CarrierGradeSymmetric, Nat::Symmetric)?;
    for side in [&neighbourhood.a, &neighbourhood.b] {
        let server = format!("{INTERMEDIATE}:{}", PORTS[0]);
        let mut process = prober.start(&side.host, "nat-watch", &["--server", &server])?;
        process.wait_for("address 1 ", PATIENCE)?;
        side.rebind(&prober.programs)?;
        process.wait_for("address 2 ", PATIENCE)?;
    }
    Ok(())
}

/// Pairs that stand for all others; the theory is tested for all of them elsewhere.
const PAIRS: [(Nat, Nat); 12] = [
    (Nat::Open, Nat::Symmetric),
    (Nat::FullCone, Nat::CarrierGradeSymmetric),
    (Nat::AddressRestricted, Nat::Symmetric),
    (Nat::AddressRestricted, Nat::AddressDependent),
    (Nat::PortRestricted, Nat::PortRestricted),
    (Nat::Linux, Nat::Linux),
    (Nat::CarrierGrade, Nat::LinuxGuarded),
    (Nat::PortRestricted, Nat::AddressDependent),
    (Nat::PortRestricted, Nat::Symmetric),
    (Nat::Linux, Nat::Symmetric),
    (Nat::Symmetric, Nat::Symmetric),
    (Nat::Open, Nat::UdpBlocked),
];

fn pairs(prober: &mut Prober) -> Result<()> {
    for (a, b) in PAIRS {
        if b == Nat::UdpBlocked {
            // It cannot even be introduced; that no UDP passes is proved elsewhere.
            ensure!(!can_meet(a, b));
            continue;
        }
        let (mut neighbourhood, _reflector) = prober.stage(a, b)?;
        neighbourhood.lengthen("")?;
        let said = prober.meet(&neighbourhood, &["--patience", "1500"], &["--patience", "1500"])?;
        let open = said.iter().all(|line| line.starts_with("open"));
        let closed = said.iter().all(|line| line == "closed");
        let theory = can_meet(a, b);
        ensure!(
            if theory { open } else { closed },
            "{a} and {b} can meet: {theory}; they say {said:?}"
        );
        let [one, other] = said;
        prober.notes.push(format!("{a:>18} x {b:<18} {one} | {other}"));
    }
    Ok(())
}

/// One side's first probes arrive before the other has sent any: they take its outer port. Probes that die between the two
/// translators open the hole and poison nothing.
fn poisoning(prober: &mut Prober) -> Result<()> {
    const LATE: &str = "80";
    let (mut neighbourhood, _reflector) = prober.stage(Nat::Linux, Nat::Linux)?;
    neighbourhood.lengthen("")?;
    let late = ["--late", LATE, "--patience", "1500"];
    for round in 0..3 {
        let said = prober.meet(&neighbourhood, &["--patience", "1500"], &late)?;
        ensure!(
            said.iter().all(|line| line == "closed"),
            "round {round}: {said:?}"
        );
    }
    let low = ["--low", "2", "--low-for", "120", "--patience", "1500"];
    for round in 0..3 {
        let said = prober.meet(&neighbourhood, &low, &late)?;
        ensure!(
            said.iter().all(|line| line.starts_with("open")),
            "round {round} with low hop limits: {said:?}"
        );
    }
    Ok(())
}
