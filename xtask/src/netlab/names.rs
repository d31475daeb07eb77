//! Names of services on a device whose `resolv.conf` is its own: who is asked what, and that everything is put back,
//! whatever happens to the agent.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use super::Test;
use crate::lab::process::Process;
use crate::lab::programs::{ALL, ECHO, INNER, OTHER, Service, WEB, agent_config, six};
use crate::lab::wait_until;
use crate::lab::world::{PATIENCE, World};

pub(super) const TESTS: &[Test] = &[
    ("names_are_answered_here_and_others_sent_on", answered),
    ("status_down_and_a_second_up", status_and_down),
    ("a_rewritten_resolv_conf_is_followed", rewritten),
    ("a_killed_agent_leaves_nothing_behind", killed),
    ("systemd_resolved_is_told_and_told_back", resolved),
    ("what_is_in_the_way_is_named", conflicts),
    ("a_reload_changes_routes_and_names", reloaded),
];

/// Devices of this world; names are on the second.
pub(super) const DEVICES: u8 = 2;
const DEVICE: u8 = 2;

const BEFORE: &str =
    "# of the laboratory\nsearch corp.lab\nnameserver 127.0.0.1\noptions timeout:1 attempts:1\n";

/// The `resolv.conf` of the device; gone with this.
struct ResolvConf(PathBuf);

impl ResolvConf {
    /// `ip netns exec` mounts it over the machine's own, for every process that it starts.
    fn new(world: &World, text: &str) -> Result<Self> {
        let folder = PathBuf::from("/etc/netns").join(world.device(DEVICE)?.name());
        fs::create_dir_all(&folder)?;
        let conf = Self(folder);
        conf.write(text)?;
        Ok(conf)
    }

    fn path(&self) -> PathBuf {
        self.0.join("resolv.conf")
    }

    /// In place, as it is mounted.
    fn write(&self, text: &str) -> Result<()> {
        fs::write(self.path(), text).context("cannot write a resolv.conf")
    }

    fn text(&self) -> String {
        fs::read_to_string(self.path()).unwrap_or_default()
    }

    fn wait_until(&self, what: &str, is_so: impl Fn(&str) -> bool) -> Result<Duration> {
        let found = wait_until(what, PATIENCE, || Ok(is_so(&self.text()).then_some(())));
        found
            .map(|((), took)| took)
            .with_context(|| format!("resolv.conf is {:?}", self.text()))
    }
}

impl Drop for ResolvConf {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn start(world: &World, name: &str, changes: &Value, before: &[&str]) -> Result<Process> {
    let mut config = agent_config(&world.pki(), &format!("device{DEVICE}"), &ALL);
    if let (Some(config), Some(changes)) = (config.as_object_mut(), changes.as_object()) {
        config.extend(changes.clone());
    }
    let config = world.write_config(name, &config)?;
    let mut words: Vec<String> = before.iter().map(ToString::to_string).collect();
    words.extend(world.programs.agent(&config));
    world.start(name, world.device(DEVICE)?, &words)
}

/// An agent that has become the device's `resolv.conf`, and is registered.
fn up(world: &World, name: &str) -> Result<Process> {
    let mut agent = start(world, name, &json!({ "dns": { "mode": "resolvconf" } }), &[])?;
    agent.wait_for(&format!("registered {0} of {0} services", ALL.len()), PATIENCE)?;
    Ok(agent)
}

/// Runs `ztna …` on the device; its exit code and what it said.
fn ztna(world: &World, words: &[&str]) -> Result<(i32, String)> {
    let mut all = vec![world.programs.executable()];
    all.extend(words.iter().map(ToString::to_string));
    let name = format!("ztna-{}", words.first().unwrap_or(&""));
    let mut process = world.start(&name, world.device(DEVICE)?, &all)?;
    let status = process.wait(PATIENCE)?;
    Ok((status.code().unwrap_or(-1), process.log()))
}

fn dig(world: &World, words: &str) -> Result<String> {
    let (good, said) = world.run(DEVICE, &format!("dig +tries=2 +time=3 {words}"), PATIENCE)?;
    ensure!(good, "dig {words}: {said}");
    Ok(said)
}

fn expect(world: &World, words: &str, needles: &[&str]) -> Result<()> {
    let said = dig(world, words)?;
    for needle in needles {
        ensure!(
            said.contains(needle),
            "dig {words} does not say {needle:?}: {said}"
        );
    }
    Ok(())
}

fn gone(world: &World) -> Result<()> {
    let device = world.device(DEVICE)?;
    wait_until("the interface to go", PATIENCE, || {
        Ok(device.ip("link show dev ztna0").is_err().then_some(()))
    })
    .map(drop)
}

fn server(world: &World, bind: &str) -> Result<Process> {
    let mut server = world.start_tool(DEVICE, &["dns", "--bind", bind])?;
    server.wait_for("ready on", PATIENCE)?;
    Ok(server)
}

/// What another server was asked; no name of ours may be among it.
fn asked(server: &Process) -> Result<Vec<String>> {
    let log = server.log();
    let names: Vec<String> = log
        .lines()
        .filter_map(|line| line.strip_prefix("asked ").map(str::to_ascii_lowercase))
        .collect();
    if let Some(leak) = names.iter().find(|name| name.ends_with(".ztna")) {
        bail!("a private name left this host: {leak}");
    }
    Ok(names)
}

fn answered(world: &mut World) -> Result<()> {
    let conf = ResolvConf::new(world, BEFORE)?;
    let other = server(world, "127.0.0.1:53")?;
    let mut agent = up(world, "names")?;
    let web = WEB.address.to_string();
    expect(world, "web.ztna A", &["status: NOERROR", "flags: qr aa", &web])?;
    expect(world, "WEB.ZtNa A", &["status: NOERROR", &web])?;
    expect(world, "+tcp web.ztna A", &["status: NOERROR", &web, "(TCP)"])?;
    expect(world, "web.ztna AAAA", &["status: NOERROR", "ANSWER: 0", "SOA"])?;
    expect(world, "nobody.ztna A", &["status: NXDOMAIN", "SOA"])?;
    expect(world, &format!("-x {web}"), &["status: NOERROR", "web.ztna."])?;
    expect(world, "host.lab A", &["status: NOERROR", "192.0.2.53"])?;
    expect(world, "+tcp tcp.lab A", &["status: NOERROR", "192.0.2.53"])?;
    expect(world, "web.ztna.corp.lab A", &["status: NOERROR", "192.0.2.53"])?;
    let (good, said) = world.run(DEVICE, "getent ahostsv4 web.ztna", PATIENCE)?;
    ensure!(good && said.contains(&web), "getent: {said}");
    // Unknown names are tried with the search list, which is not ours; the bare name must stay here.
    let (good, said) = world.run(DEVICE, "getent ahostsv4 secret.ztna", PATIENCE)?;
    ensure!(good == said.contains("192.0.2.53"), "getent: {said}");
    let url = format!("http://web.ztna:{}/who", WEB.port);
    let (good, said) = world.run(DEVICE, &format!("curl --silent --max-time 20 {url}"), PATIENCE)?;
    ensure!(good && said == WEB.id, "curl: {said}{}", agent.last_words());
    let names = asked(&other)?;
    for name in ["host.lab", "tcp.lab", "web.ztna.corp.lab"] {
        ensure!(
            names.iter().any(|asked| asked == name),
            "{name} was not sent on: {names:?}"
        );
    }
    world.note(format!(
        "the other server was asked {} times, and for nothing private",
        names.len()
    ));
    agent.signal(Signal::TERM)?;
    ensure!(agent.wait(PATIENCE)?.success(), "{}", agent.last_words());
    ensure!(conf.text() == BEFORE, "not put back: {}", conf.text());
    Ok(())
}

fn status_and_down(world: &mut World) -> Result<()> {
    let conf = ResolvConf::new(world, BEFORE)?;
    let (code, said) = ztna(world, &["status"])?;
    ensure!(code == 3 && said.contains("no `ztna up` runs"), "{code}: {said}");
    let mut agent = up(world, "status")?;
    let (good, said) = world.run(
        DEVICE,
        &format!("ping -n -c 3 -i 0.05 -W 3 {}", ECHO.address),
        PATIENCE,
    )?;
    ensure!(good, "{said}");
    let (code, said) = ztna(world, &["status", "--json"])?;
    ensure!(code == 0, "{said}");
    let report: Value = serde_json::from_str(&said).with_context(|| said.clone())?;
    ensure!(report["pid"] == json!(agent.id()), "{said}");
    ensure!(report["interface"]["addresses"] == json!([INNER]), "{said}");
    // An ordinary path, less the longest service id ("other").
    ensure!(report["interface"]["mtu"] == json!(1418 - 5), "{said}");
    ensure!(report["intermediate"]["connected"] == json!(true), "{said}");
    ensure!(report["dns"]["mode"] == json!("resolvconf"), "{said}");
    ensure!(report["traffic"]["sent_packets"].as_u64() >= Some(3), "{said}");
    ensure!(
        report["traffic"]["received_packets"].as_u64() >= Some(3),
        "{said}"
    );
    let services = report["services"].as_array().context("no services")?;
    ensure!(services.len() == ALL.len(), "{said}");
    ensure!(
        services
            .iter()
            .all(|service| service["registered"] == json!(true)),
        "{said}"
    );
    let offload = |key: &str| report["interface"][key] == json!(true);
    world.note(format!(
        "offload: TCP {}, UDP {}",
        offload("tcp_offload"),
        offload("udp_offload")
    ));
    ensure!(offload("tcp_offload"), "the kernel has no TCP offload: {said}");
    let (code, said) = ztna(world, &["status"])?;
    ensure!(
        code == 0 && said.contains("web.ztna") && said.contains("registered"),
        "{said}"
    );
    let mut second = start(world, "second", &json!({}), &[])?;
    let ended = second.wait(PATIENCE)?;
    let expected = format!("runs already (process {})", agent.id());
    ensure!(
        ended.code() == Some(2) && second.log().contains(&expected),
        "{}",
        second.last_words()
    );
    let (code, said) = ztna(world, &["down"])?;
    ensure!(code == 0 && said.contains("ztna0 is down"), "{code}: {said}");
    ensure!(agent.wait(PATIENCE)?.success(), "{}", agent.last_words());
    ensure!(conf.text() == BEFORE, "not put back: {}", conf.text());
    gone(world)?;
    let (code, said) = ztna(world, &["down"])?;
    ensure!(code == 3 && said.contains("no `ztna up` runs"), "{code}: {said}");
    Ok(())
}

fn rewritten(world: &mut World) -> Result<()> {
    let conf = ResolvConf::new(world, BEFORE)?;
    let first = server(world, "127.0.0.1:53")?;
    let second = server(world, "127.0.0.2:53")?;
    let mut agent = up(world, "rewritten")?;
    expect(world, "one.lab A", &["192.0.2.53"])?;
    // What a DHCP client does on another network.
    let after = BEFORE.replace("127.0.0.1", "127.0.0.2");
    conf.write(&after)?;
    let took = conf.wait_until("names to come back", |text| text.starts_with("# ztna up: ztna0"))?;
    expect(world, "two.lab A", &["192.0.2.53"])?;
    expect(world, "web.ztna A", &[&WEB.address.to_string()])?;
    ensure!(asked(&first)? == ["one.lab"], "{:?}", asked(&first)?);
    ensure!(asked(&second)? == ["two.lab"], "{:?}", asked(&second)?);
    agent.signal(Signal::INT)?;
    ensure!(agent.wait(PATIENCE)?.success(), "{}", agent.last_words());
    ensure!(
        conf.text() == after,
        "the newest is what comes back: {}",
        conf.text()
    );
    world.note(format!(
        "names were back {:.1} s after a rewrite",
        took.as_secs_f32()
    ));
    Ok(())
}

/// The guard of an agent, which is its only child.
fn guard(agent: &Process) -> Result<Pid> {
    let id = agent.id();
    let children = fs::read_to_string(format!("/proc/{id}/task/{id}/children"))?;
    let found = children
        .split_whitespace()
        .next()
        .and_then(|pid| pid.parse().ok());
    found.and_then(Pid::from_raw).context("the agent has no guard")
}

fn killed(world: &mut World) -> Result<()> {
    let conf = ResolvConf::new(world, BEFORE)?;
    let mut agent = up(world, "killed")?;
    ensure!(conf.text() != BEFORE, "nothing was changed");
    agent.signal(Signal::KILL)?;
    let took = conf.wait_until("the guard", |text| text == BEFORE)?;
    gone(world)?;
    world.note(format!("the guard was done after {:.2} s", took.as_secs_f32()));
    // With the guard killed first, `ztna down` does it.
    let mut agent = up(world, "killed-too")?;
    kill_process(guard(&agent)?, Signal::KILL)?;
    agent.signal(Signal::KILL)?;
    agent.wait(PATIENCE)?;
    ensure!(conf.text() != BEFORE, "somebody put it back");
    let (code, said) = ztna(world, &["down"])?;
    ensure!(
        code == 0 && said.contains("put back: /etc/resolv.conf"),
        "{code}: {said}"
    );
    ensure!(conf.text() == BEFORE, "not put back: {}", conf.text());
    // So does the next `ztna up`, and takes over from the original.
    let mut agent = up(world, "killed-again")?;
    kill_process(guard(&agent)?, Signal::KILL)?;
    agent.signal(Signal::KILL)?;
    agent.wait(PATIENCE)?;
    let mut agent = up(world, "after")?;
    ensure!(
        agent.log().contains("put back what an earlier run had left"),
        "{}",
        agent.last_words()
    );
    agent.signal(Signal::TERM)?;
    ensure!(agent.wait(PATIENCE)?.success(), "{}", agent.last_words());
    ensure!(conf.text() == BEFORE, "not put back: {}", conf.text());
    Ok(())
}

fn resolved(world: &mut World) -> Result<()> {
    // systemd-resolved does not run here; what counts is what it is told.
    let text = "nameserver 127.0.0.53\noptions edns0 trust-ad\nsearch .\n";
    let conf = ResolvConf::new(world, text)?;
    let folder = world.pki().with_file_name("fake");
    fs::create_dir_all(&folder)?;
    let (fake, record) = (folder.join("resolvectl"), folder.join("record"));
    fs::write(&fake, format!("#!/bin/sh\necho \"$*\" >> {}\n", record.display()))?;
    let mode = <fs::Permissions as std::os::unix::fs::PermissionsExt>::from_mode(0o755);
    fs::set_permissions(&fake, mode)?;
    let path = format!(
        "PATH={}:{}",
        folder.display(),
        std::env::var("PATH").unwrap_or_default()
    );
    let dns = json!({ "dns": { "mode": "auto" } });
    let mut agent = start(world, "resolved", &dns, &["env", &path])?;
    agent.wait_for(&format!("registered {0} of {0} services", ALL.len()), PATIENCE)?;
    let told = fs::read_to_string(&record)?;
    let lines: Vec<&str> = told.lines().collect();
    let (dns, domain) = (format!("dns ztna0 {INNER}"), "domain ztna0 ~ztna");
    ensure!(lines.get(..3) == Some(&["dns", dns.as_str(), domain]), "{told}");
    ensure!(
        lines
            .iter()
            .all(|line| *line == "dns" || line.contains(" ztna0 ")),
        "{told}"
    );
    ensure!(conf.text() == text, "resolv.conf was touched: {}", conf.text());
    expect(
        world,
        &format!("@{INNER} web.ztna A"),
        &[&WEB.address.to_string()],
    )?;
    expect(world, &format!("@{INNER} host.lab A"), &["status: REFUSED"])?;
    agent.signal(Signal::TERM)?;
    ensure!(agent.wait(PATIENCE)?.success(), "{}", agent.last_words());
    let told = fs::read_to_string(&record)?;
    ensure!(told.lines().last() == Some("revert ztna0"), "{told}");
    ensure!(conf.text() == text, "resolv.conf was touched: {}", conf.text());
    Ok(())
}

fn conflicts(world: &mut World) -> Result<()> {
    let device = world.device(DEVICE)?;
    let refused = |name: &str, needle: &str| -> Result<()> {
        let mut agent = start(world, name, &json!({}), &[])?;
        let ended = agent.wait(PATIENCE)?;
        let log = agent.log();
        let is_told = log.contains("service web: ") && log.contains(needle);
        ensure!(
            ended.code() == Some(2) && is_told,
            "{needle}{}",
            agent.last_words()
        );
        Ok(())
    };
    let web = WEB.address;
    device.ip(&format!("address add {web}/32 dev lo"))?;
    refused("own", "is an address of this host already")?;
    device.ip(&format!("address del {web}/32 dev lo"))?;
    device.ip(&format!("route add {web}/32 dev lo"))?;
    refused("elsewhere", "exists already, through lo")?;
    device.ip(&format!("route del {web}/32 dev lo"))?;
    // A wider network is no obstacle, and gets its traffic back.
    device.ip("route add 10.99.0.0/24 dev lo")?;
    let mut agent = up_without_names(world)?;
    let (good, said) = world.run(DEVICE, &format!("ping -n -c 1 -W 5 {web}"), PATIENCE)?;
    ensure!(good, "{said}");
    agent.signal(Signal::TERM)?;
    ensure!(agent.wait(PATIENCE)?.success(), "{}", agent.last_words());
    world.device(DEVICE)?.ip("route del 10.99.0.0/24 dev lo")?;
    Ok(())
}

fn up_without_names(world: &World) -> Result<Process> {
    let mut agent = start(world, "plain", &json!({}), &[])?;
    agent.wait_for(&format!("registered {0} of {0} services", ALL.len()), PATIENCE)?;
    Ok(agent)
}

fn reloaded(world: &mut World) -> Result<()> {
    let conf = ResolvConf::new(world, BEFORE)?;
    let write = |services: &[Service]| {
        let mut config = agent_config(&world.pki(), &format!("device{DEVICE}"), services);
        if let Some(members) = config.as_object_mut() {
            members.insert("dns".to_owned(), json!({ "mode": "resolvconf" }));
        }
        world.write_config("reloaded", &config)
    };
    let words = world.programs.agent(&write(&[ECHO, WEB])?);
    let mut agent = world.start("reloaded", world.device(DEVICE)?, &words)?;
    agent.wait_for("registered 2 of 2 services", PATIENCE)?;
    expect(world, "other.ztna A", &["status: NXDOMAIN"])?;
    write(&[ECHO, OTHER])?;
    agent.signal(Signal::HUP)?;
    agent.wait_for("2 services, 1 new, 0 changed, 1 removed", PATIENCE)?;
    expect(
        world,
        "other.ztna A",
        &["status: NOERROR", &OTHER.address.to_string()],
    )?;
    expect(world, "web.ztna A", &["status: NXDOMAIN"])?;
    let routes = world.device(DEVICE)?.ip("route show dev ztna0")?;
    let has = |service: Service| routes.contains(&format!("{} ", service.address));
    ensure!(has(ECHO) && has(OTHER) && !has(WEB), "{routes}");
    let (good, said) = world.run(DEVICE, &format!("ping -n -c 1 -W 5 {}", ECHO.address), PATIENCE)?;
    ensure!(good, "{said}");
    // A bad one changes nothing: the address of the new service is this host's.
    let device = world.device(DEVICE)?;
    device.ip(&format!("address add {}/32 dev lo", WEB.address))?;
    write(&[ECHO, OTHER, WEB])?;
    agent.wait_for(
        "not reloaded, the one before keeps running: service web",
        PATIENCE,
    )?;
    device.ip(&format!("address del {}/32 dev lo", WEB.address))?;
    expect(world, "other.ztna A", &["status: NOERROR"])?;
    first_of_ipv6(world, &mut agent)?;
    agent.signal(Signal::TERM)?;
    ensure!(agent.wait(PATIENCE)?.success(), "{}", agent.last_words());
    ensure!(conf.text() == BEFORE, "not put back: {}", conf.text());
    Ok(())
}

/// The agent of [`reloaded`] learns of a service with an IPv6 address, and needs one itself.
fn first_of_ipv6(world: &World, agent: &mut Process) -> Result<()> {
    let device = world.device(DEVICE)?;
    let own = "fd7a:746e:6100::1";
    let addresses = || device.ip("-6 address show dev ztna0");
    ensure!(!addresses()?.contains(own), "it is there already");
    let file = world.folder().join("reloaded.json");
    let mut config: Value = serde_json::from_str(&std::fs::read_to_string(&file)?)?;
    let services = json!([
        { "id": ECHO.id, "virtualIp": [ECHO.address, six(ECHO.address)] },
        { "id": OTHER.id, "virtualIp": OTHER.address },
    ]);
    let members = config.as_object_mut().context("no object")?;
    members.insert("services".to_owned(), services);
    world.write_config("reloaded", &config)?;
    agent.signal(Signal::HUP)?;
    agent.wait_for("2 services, 0 new, 1 changed, 0 removed", PATIENCE)?;
    ensure!(addresses()?.contains(own), "{}", addresses()?);
    // Programs speak to it from that address.
    let way = device.ip(&format!("-6 route get {}", six(ECHO.address)))?;
    ensure!(
        way.contains("dev ztna0") && way.contains(&format!("src {own}")),
        "{way}"
    );
    let (code, said) = ztna(world, &["status", "--json"])?;
    ensure!(code == 0 && said.contains(own), "{code}: {said}");
    Ok(())
}
