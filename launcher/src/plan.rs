//! `muster plan`: what `muster run` would start where, without starting anything.

use std::fmt::Write as _;

use muster_core::surroundings::{Finding, Place};
use serde::Serialize;

use crate::cli::RunOptions;
use crate::discover::Surroundings;
use crate::report;
use crate::run::Usage;
use crate::run::prepare::place;

/// Who has started this process, as plans show it.
#[derive(Serialize)]
pub(crate) struct Whereabouts {
    #[serde(flatten)]
    finding: Finding,
    pod: Place,
}

#[derive(Serialize)]
struct Shown<'a, T> {
    #[serde(flatten)]
    sheet: T,
    surroundings: &'a Whereabouts,
}

impl Whereabouts {
    pub(crate) fn look(site: &Surroundings, hostname: &str) -> Self {
        let traces = site.traces(hostname);
        Self { finding: traces.control_plane(), pod: traces.place() }
    }

    /// One line, or two where the pod's place is known.
    pub(crate) fn text(&self) -> String {
        let mut text = format!("control plane: {} ({})\n", self.finding.control_plane.name(), self.finding.reason);
        let pod = self.pod.describe();
        if !pod.is_empty() {
            // Writing to a string does not fail.
            let _ = writeln!(text, "this pod: {pod}");
        }
        text
    }
}

/// Prints the plan.
pub fn show(options: &RunOptions, json: bool, site: &Surroundings) -> anyhow::Result<()> {
    report::notes(&options.notes);
    let (found, plan) = place(options, site).map_err(|e| Usage(e.to_string()))?;
    report::notes(&found.hosts.notes);
    let (sheet, surroundings) = (plan.sheet(), Whereabouts::look(site, &muster_sys::proc::hostname()));
    let text = if json {
        serde_json::to_string_pretty(&Shown { sheet, surroundings: &surroundings })? + "\n"
    } else {
        format!("{}{sheet}", surroundings.text())
    };
    report::print(&text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn c5_a_plan_says_which_control_plane_was_found_and_why() {
        let root = tempfile::tempdir().unwrap();
        let shown = |hostname: &str, variables: &[(&str, &str)]| {
            let site = Surroundings::new(variables.iter().map(|(n, v)| (n.into(), v.into())), root.path(), 1);
            Whereabouts::look(&site, hostname)
        };
        let none = shown("desk", &[]).text();
        assert_eq!(none, "control plane: none (no variable, file or host name of a known one is here)\n");
        std::fs::create_dir(root.path().join("etc")).unwrap();
        std::fs::write(root.path().join("etc/resolv.conf"), "search team.svc.cluster.local svc.cluster.local\n")
            .unwrap();
        let found = shown("pi-launcher", &[("K_MPI_JOB_ROLE", "launcher")]);
        let want = "control plane: mpi-operator v2 (K_MPI_JOB_ROLE is set)\n\
                    this pod: role launcher, job pi, launcher pi-launcher, namespace team\n";
        assert_eq!(found.text(), want);
        std::fs::create_dir_all(root.path().join("etc/mpi")).unwrap();
        std::fs::write(root.path().join("etc/mpi/kubexec.sh"), "#!/bin/sh\n").unwrap();
        let found = serde_json::to_value(shown("pi-worker-1", &[])).unwrap();
        assert_eq!((&found["control_plane"], &found["pod"]["index"]), (&"mpi-job-v1".into(), &1.into()));
    }
}
