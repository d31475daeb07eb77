//! The agent without a tunnel interface: the same steps in a namespace and on loopback.

use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use rustix::process::Signal;

use super::stage::Show;
use crate::lab::process::Process;
use crate::lab::programs::Programs;
use crate::lab::world::PATIENCE;

/// How much is downloaded.
const FILE: u64 = 20_000_000;

/// Where it is played: programs, an agent's configuration, and how to start something there.
pub(super) struct Ground<'a> {
    pub(super) programs: &'a Programs,
    pub(super) config: &'a Path,
    /// The port of the web service.
    pub(super) port: u16,
    pub(super) start: &'a dyn Fn(&str, &[String]) -> Result<Process>,
}

/// Plays it.
pub(super) fn play(show: &mut Show, ground: &Ground<'_>) {
    show.headline("Without root, interface or route");
    show.step("ztna forward: a local port leads to a service; curl", |show| {
        let listen = format!("127.0.0.1:0=web:{}", ground.port);
        let (agent, address) = ground.listener(&["forward", "--forward", &listen], "ztna forward: ")?;
        show.say(format!("$ ztna forward web:{} --listen {address}", ground.port));
        let said = ground.curl(
            &["-o", "/dev/null", "-w", "%{size_download}"],
            &format!("http://{address}/bytes/{FILE}"),
        )?;
        ensure!(said.trim() == FILE.to_string(), "{said}");
        show.say(format!("$ curl http://{address}/bytes/{FILE}: {FILE} bytes"));
        leave(agent)
    });
    show.step(
        "ztna socks: programs name services; curl --socks5-hostname",
        |show| {
            let (agent, address) =
                ground.listener(&["socks", "--listen", "127.0.0.1:0"], "ztna socks: proxy on ")?;
            show.say(format!("$ ztna socks --listen {address}"));
            let url = format!("http://web.ztna:{}/who", ground.port);
            let said = ground.curl(&["--socks5-hostname", &address], &url)?;
            show.say(format!(
                "$ curl --socks5-hostname {address} {url}: {}",
                said.trim()
            ));
            leave(agent)
        },
    );
    show.step(
        "ztna connect: a pipe to a service, as for ssh -o ProxyCommand",
        |show| {
            let target = format!("web:{}", ground.port);
            let mut pipe = ground.ztna("connect", &["connect", &target])?;
            pipe.say("GET /who HTTP/1.0\r\n\r")?;
            let status = pipe.hang_up(PATIENCE)?;
            let said = pipe.log();
            ensure!(status.success() && said.contains("200 OK"), "{status}: {said}");
            let last = said.lines().last().unwrap_or_default().to_owned();
            show.say(format!("$ printf 'GET /who …' | ztna connect {target}: {last}"));
            Ok(())
        },
    );
}

impl Ground<'_> {
    fn ztna(&self, name: &str, words: &[&str]) -> Result<Process> {
        (self.start)(name, &self.programs.ztna(words, self.config))
    }

    /// Starts an agent that listens; also says where.
    fn listener(&self, words: &[&str], announcement: &str) -> Result<(Process, String)> {
        let name = words.first().copied().unwrap_or("ztna");
        let mut agent = self.ztna(name, words)?;
        let (line, _) = agent.wait_for(announcement, PATIENCE)?;
        let address = line
            .split_once(announcement)
            .and_then(|(_, rest)| rest.split(' ').next())
            .context("no address")?
            .to_owned();
        agent.wait_for("ztna registered ", PATIENCE)?;
        Ok((agent, address))
    }

    fn curl(&self, words: &[&str], url: &str) -> Result<String> {
        let fixed = ["curl", "-sS", "--noproxy", "", "--max-time", "60"];
        let words: Vec<String> = fixed
            .iter()
            .chain(words)
            .chain(&[url])
            .map(ToString::to_string)
            .collect();
        let mut curl = (self.start)("curl", &words)?;
        let status = curl.hang_up(PATIENCE)?;
        let said = curl.log();
        ensure!(status.success(), "{said}");
        Ok(said)
    }
}

fn leave(mut agent: Process) -> Result<()> {
    agent.signal(Signal::TERM)?;
    let status = agent.wait(PATIENCE)?;
    ensure!(status.code() == Some(0), "it ended with {status}");
    Ok(())
}
