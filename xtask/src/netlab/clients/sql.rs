//! psql with a real PostgreSQL: many rows in and out, and a session that says nothing for a while.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};
use rustix::process::Signal;

use super::{AS_NOBODY, SQL, backend, client, folder_of_nobody};
use crate::command::output;
use crate::lab::process::Process;
use crate::lab::world::{PATIENCE, World};
use crate::netlab::Test;

pub(super) const TESTS: &[Test] = &[("psql_bulk_and_idle", psql)];

const ROWS: u32 = 100_000;

/// Where the distribution puts the server: not on anybody's PATH.
fn programs() -> Result<PathBuf> {
    let mut found: Vec<PathBuf> = fs::read_dir("/usr/lib/postgresql")
        .context("PostgreSQL is not installed")?
        .flatten()
        .map(|version| version.path().join("bin"))
        .filter(|folder| folder.join("initdb").is_file())
        .collect();
    found.sort();
    found.pop().context("PostgreSQL has no server")
}

fn postgres(world: &World) -> Result<Process> {
    let programs = programs()?;
    // The server refuses to be root.
    let data = folder_of_nobody(world, "sql")?;
    let (folder, initdb, server) = (
        data.display().to_string(),
        programs.join("initdb").display().to_string(),
        programs.join("postgres").display().to_string(),
    );
    let words = [
        "--auth=trust",
        "--username=lab",
        "--no-sync",
        "--locale=C",
        "--encoding=UTF8",
        "-D",
        &folder,
    ];
    let mut make = world.site.private.command(AS_NOBODY[0]);
    output(
        make.args(&AS_NOBODY[1..])
            .arg(initdb)
            .args(words)
            .current_dir("/"),
    )?;
    let anybody = fs::OpenOptions::new()
        .append(true)
        .open(data.join("pg_hba.conf"))?;
    std::io::Write::write_all(&mut { anybody }, b"host all all 0.0.0.0/0 trust\n")?;
    let (port, address) = (SQL.port.to_string(), format!("listen_addresses={}", SQL.backend));
    let sockets = format!("unix_socket_directories={folder}");
    let words = [
        &server,
        "-D",
        &folder,
        "-p",
        &port,
        "-c",
        &address,
        "-c",
        &sockets,
        "-c",
        "fsync=off",
    ];
    backend(
        world,
        "postgres",
        &[&AS_NOBODY[..], &words].concat(),
        "ready to accept connections",
    )
}

fn psql(world: &mut World) -> Result<()> {
    let mut postgres = postgres(world)?;
    let (address, port) = (SQL.address.to_string(), SQL.port.to_string());
    let base = [
        "psql",
        "-X",
        "-q",
        "-A",
        "-t",
        "-v",
        "ON_ERROR_STOP=1",
        "-h",
        &address,
        "-p",
        &port,
        "-U",
        "lab",
        "-d",
        "postgres",
    ];

    let mut idle = {
        let words: Vec<String> = base.iter().map(ToString::to_string).collect();
        world.start("psql-idle", world.device(1)?, &words)?
    };
    idle.say("select 'awake', 1;")?;
    idle.wait_for("awake|1", PATIENCE)?;

    let rows: String = (1..=ROWS).map(|row| format!("{row}\t{}\n", text(row))).collect();
    let file = world.write_text("rows", &rows)?;
    let run = |command: &str| client(world, 90, &[&base[..], &["-c", command]].concat());
    run("create table bulk (id int primary key, text text)")?;
    run(&format!("\\copy bulk from '{}'", file.display()))?;
    let count = run("select count(*), sum(id) from bulk")?;
    let sum = u64::from(ROWS) * u64::from(ROWS + 1) / 2;
    ensure!(count.trim() == format!("{ROWS}|{sum}"), "{count}");
    let back = run("\\copy (select * from bulk order by id) to stdout")?;
    ensure!(
        back == rows,
        "{} bytes went in, {} came out",
        rows.len(),
        back.len()
    );
    // One statement a row, one round trip each.
    let mut singles = String::from("create table singles (id int);\n");
    for row in 0..500 {
        singles.push_str(&format!("insert into singles values ({row});\n"));
    }
    let file = world.write_text("singles.sql", &singles)?;
    client(
        world,
        90,
        &[&base[..], &["-f", &file.display().to_string()]].concat(),
    )?;
    ensure!(run("select count(*) from singles")?.trim() == "500");

    // The session has been silent all the while; the server is still at the other end.
    idle.say("select 'still', count(*) from bulk;")?;
    idle.wait_for(&format!("still|{ROWS}"), PATIENCE)?;
    ensure!(idle.hang_up(PATIENCE)?.success(), "{}", idle.log());
    // Its "fast shutdown"; killed, it would leave its workers behind for a while.
    postgres.signal(Signal::INT)?;
    postgres.wait(PATIENCE)?;
    Ok(())
}

/// What is in a row: words of any length that compress badly.
fn text(row: u32) -> String {
    format!("{:08x}", row.wrapping_mul(0x9e37_79b9)).repeat((row % 11 + 1) as usize)
}
