//! A wire with delay and loss between two namespaces: the instrument `wire`, its ends in their places.

use std::path::Path;
use std::time::Duration;

use anyhow::Result;

use super::namespace::Namespace;
use super::process::Process;
use super::programs::Programs;
use super::world::PATIENCE;
use crate::tool::wire::Conditions;

/// A wire; it goes, with both ends, when this goes.
#[derive(Debug)]
pub(crate) struct Wire {
    process: Process,
}

impl Wire {
    /// Lays one from `left` (`NET.2` on interface `left`) to `right` (`NET.1` on `right`); `net` is the three leading bytes.
    pub(crate) fn lay(
        programs: &Programs,
        folder: &Path,
        left: &Namespace,
        right: &Namespace,
        net: &str,
    ) -> Result<Self> {
        let wire = Self::join(programs, folder, (left, "left"), (right, "right"))?;
        for (host, port, last) in [(left, "left", 2), (right, "right", 1)] {
            host.ip(&format!("address add {net}.{last}/24 dev {port}"))?;
        }
        Ok(wire)
    }

    /// Lays one between two interfaces of these (different) names, both up and without addresses.
    pub(crate) fn join(
        programs: &Programs,
        folder: &Path,
        (left, here): (&Namespace, &str),
        (right, there): (&Namespace, &str),
    ) -> Result<Self> {
        let mut command = right.command(programs.instruments());
        command.args(["tool", "wire", "--left", here, "--right", there]);
        let mut process = Process::start("wire", folder, &mut command)?;
        process.wait_for("ready", PATIENCE)?;
        right.give(here, left)?;
        left.ip(&format!("link set {here} up"))?;
        right.ip(&format!("link set {there} up"))?;
        Ok(Self { process })
    }

    /// Gives it a character. What is on the way under the old one is lost.
    pub(crate) fn set(&mut self, conditions: &Conditions) -> Result<()> {
        let told = self.process.log().lines().count();
        self.process.say(&conditions.to_string())?;
        // It answers with its account: from then on the new character holds.
        super::wait_until("the wire", Duration::from_secs(5), || {
            Ok((self.process.log().lines().count() > told).then_some(()))
        })?;
        Ok(())
    }
}
