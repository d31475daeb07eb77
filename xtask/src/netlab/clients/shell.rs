//! ssh and scp with a real sshd and keys made for the occasion.

use std::fs;
use std::process::Command;

use anyhow::{Result, ensure};

use super::{SSH, backend, client};
use crate::command::output;
use crate::lab::process::Process;
use crate::lab::world::World;
use crate::netlab::Test;

pub(super) const TESTS: &[Test] = &[("ssh_and_scp", ssh)];

const FILE: u64 = 10_000_000;

fn sshd(world: &World) -> Result<Process> {
    let folder = world.folder().join("ssh");
    fs::create_dir(&folder)?;
    for name in ["host", "user"] {
        let path = folder.join(name);
        output(
            Command::new("ssh-keygen")
                .args(["-q", "-t", "ed25519", "-N", "", "-f"])
                .arg(path),
        )?;
    }
    // Where the server locks itself in before a login. The package makes it at boot, which containers do not have.
    fs::create_dir_all("/run/sshd")?;
    // Root without a password can log in with a key; root with a locked account only through PAM.
    let shadow = fs::read_to_string("/etc/shadow").unwrap_or_default();
    let locked = shadow.lines().any(|line| line.starts_with("root:!"));
    let config = format!(
        "Port {}\nListenAddress {}\nHostKey {here}/host\nPidFile none\nAuthorizedKeysFile {here}/user.pub\n\
         StrictModes no\nUsePAM {}\nPermitRootLogin prohibit-password\nPasswordAuthentication no\n\
         Subsystem sftp internal-sftp\nUseDNS no\n",
        SSH.port,
        SSH.backend,
        if locked { "yes" } else { "no" },
        here = folder.display(),
    );
    let config = world.write_text("sshd.conf", &config)?;
    let words = ["/usr/sbin/sshd", "-D", "-e", "-f", &config.display().to_string()];
    backend(world, "sshd", &words, "Server listening")
}

fn ssh(world: &mut World) -> Result<()> {
    let _sshd = sshd(world)?;
    let folder = world.folder().join("ssh");
    let (key, port) = (folder.join("user").display().to_string(), SSH.port.to_string());
    let known = format!("UserKnownHostsFile={}", folder.join("known").display());
    let options = [
        "-i",
        &key,
        "-o",
        &known,
        "-o",
        "StrictHostKeyChecking=accept-new",
        "-o",
        "BatchMode=yes",
        "-o",
        "ConnectTimeout=20",
    ];
    let host = format!("root@{}", SSH.address);
    let login = [&["ssh", "-p", &port], &options[..], &[host.as_str()]].concat();
    let said = client(
        world,
        30,
        &[&login[..], &["echo", "hello", "from", "$(hostname)"]].concat(),
    )?;
    ensure!(said.starts_with("hello from "), "{said}");
    // The status of a remote program is the status of ssh.
    let failed = client(world, 30, &[&login[..], &["exit", "7"]].concat());
    let text = failed.err().map(|error| format!("{error:#}")).unwrap_or_default();
    ensure!(text.contains("exit status: 7"), "{text}");
    // A terminal's worth of output, which the server writes in many small pieces.
    let said = client(world, 30, &[&login[..], &["seq", "1", "20000"]].concat())?;
    let expected: String = (1..=20_000).map(|number| format!("{number}\n")).collect();
    ensure!(said == expected, "{} bytes of {}", said.len(), expected.len());

    let file = world.make_file(FILE)?.display().to_string();
    let (there, back) = (folder.join("there"), folder.join("back"));
    let copy = [&["scp", "-q", "-P", &port], &options[..]].concat();
    let remote = format!("{host}:{}", there.display());
    client(world, 60, &[&copy[..], &[&file, &remote]].concat())?;
    client(
        world,
        60,
        &[&copy[..], &[&remote, &back.display().to_string()]].concat(),
    )?;
    let digests = [
        super::digest(file.as_ref())?,
        super::digest(&there)?,
        super::digest(&back)?,
    ];
    ensure!(digests.iter().all(|digest| *digest == digests[0]), "{digests:?}");
    Ok(())
}
