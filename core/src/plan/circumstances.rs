//! What Open MPI's ranks are told of their host: that cores are shared, or that there is no fabric to look for.
//!
//! Neither is known when the plan is made, so hosts add it. What people have said about the same, in variables or in Open MPI's own
//! files, stays.

use std::fmt;

use serde::Serialize;

use crate::params::Params;

/// Kinds of devices (folders of `/sys/class`) that ranks reach each other by without TCP: InfiniBand, RoCE, Omni-Path, EFA and usNIC
/// are all in the first, Slingshot, BXI and Aries in the others.
pub const FABRICS: [&str; 4] = ["infiniband", "cxi", "bxi", "gni"];
/// Variables of Open MPI's parameters begin so.
const PREFIX: &str = "OMPI_MCA_";
/// Parameters, of Open MPI or of libfabric's variables, of those who choose a fabric by themselves.
const OWN_CHOICE: [&str; 3] = ["pml", "mtl", "btl"];
const OWN_CHOICE_PREFIXES: [&str; 6] =
    ["mtl_", "btl_ofi_", "btl_openib_", "btl_uct_", "btl_usnic_", "opal_common_ofi_"];
const LIBFABRIC: &str = "FI_PROVIDER";
/// Who names other files of parameters has them somewhere that is not looked at.
const OTHER_FILES: &str = "OMPI_MCA_mca_base_param_files";

/// When a variable is set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum When {
    /// Ranks of the job outnumber the cores of their host, or of the machine that several hosts are parts of.
    Crowded,
    /// The host has no device of a fabric.
    NoFabric,
}

impl fmt::Display for When {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Crowded => "where ranks outnumber cores",
            Self::NoFabric => "on a host without a fabric",
        })
    }
}

/// A parameter of Open MPI that depends on the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Conditional {
    /// The variable.
    pub name: &'static str,
    /// Its value. One that begins with `^` names what is left out; what is left out already stays so.
    pub value: &'static str,
    /// When it is set.
    pub when: When,
    /// Why.
    pub reason: &'static str,
}

/// All of them.
pub const CONDITIONALS: [Conditional; 3] = [
    Conditional {
        name: "OMPI_MCA_mpi_yield_when_idle",
        value: "1",
        when: When::Crowded,
        reason: "Open MPI: a rank that waits gives way to others, as under mpirun with more ranks than slots",
    },
    Conditional {
        name: "OMPI_MCA_btl",
        value: "^ofi,openib,uct,usnic",
        when: When::NoFabric,
        reason: "Open MPI: do not load libraries of fabrics that are not there",
    },
    Conditional {
        name: "OMPI_MCA_mtl",
        value: "^ofi,portals4,psm,psm2",
        when: When::NoFabric,
        reason: "Open MPI: do not load libraries of fabrics that are not there",
    },
];

/// Whether the files have a list of what is used, and not of what is left out, or a parameter of a fabric.
fn choose_a_fabric(params: &Params) -> bool {
    params.iter().any(|(name, value)| {
        OWN_CHOICE.contains(&name) && !value.starts_with('^')
            || OWN_CHOICE_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
    })
}

/// What is so on the host of a rank.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Circumstances<'a> {
    /// Ranks have to share cores.
    pub crowded: bool,
    /// It has a device of a fabric.
    pub fabric: bool,
    /// What Open MPI's files say there.
    pub params: Option<&'a Params>,
}

/// The variables that a rank gets for it. `said` are the names of those that it has from its user or its host, `planned` are
/// variables that the plan gives it, which may be replaced.
pub fn conditionals<'n>(
    here: &Circumstances<'_>,
    said: impl Iterator<Item = &'n str> + Clone,
    planned: impl Fn(&str) -> Option<String>,
) -> Vec<(&'static str, String)> {
    let chosen = here.params.is_some_and(choose_a_fabric) || said.clone().any(chooses_a_fabric);
    let applies = |one: &&Conditional| match one.when {
        When::Crowded => here.crowded,
        When::NoFabric => !here.fabric && !chosen,
    };
    let mut out = Vec::new();
    for one in CONDITIONALS.iter().filter(applies).filter(|one| !said.clone().any(|name| name == one.name)) {
        let in_files = here.params.and_then(|p| p.get(&one.name[PREFIX.len()..]).map(str::to_owned));
        let others: Vec<String> = planned(one.name).into_iter().chain(in_files).collect();
        if others.is_empty() {
            out.push((one.name, one.value.to_owned()));
        } else if others.iter().all(|value| value.starts_with('^') && one.value.starts_with('^')) {
            let all = others.iter().rev().fold(one.value.to_owned(), |all, value| without_both(value, &all));
            out.push((one.name, all));
        }
    }
    out
}

fn chooses_a_fabric(name: &str) -> bool {
    let of_open_mpi = name.strip_prefix(PREFIX).is_some_and(|name| {
        OWN_CHOICE.contains(&name) || OWN_CHOICE_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
    });
    of_open_mpi || name == LIBFABRIC || name == OTHER_FILES
}

/// Two lists of what is left out, as one.
fn without_both(one: &str, other: &str) -> String {
    let mut names: Vec<&str> = one[1..].split(',').collect();
    let more: Vec<&str> = other[1..].split(',').filter(|name| !names.contains(name)).collect();
    names.extend(more);
    format!("^{}", names.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn params(text: &str) -> Params {
        let mut params = Params::default();
        params.add(text);
        params
    }

    fn shown(here: &Circumstances<'_>, said: &[&str], planned: &[(&str, &str)]) -> Vec<String> {
        let planned = |name: &str| planned.iter().find(|(n, _)| *n == name).map(|(_, v)| (*v).to_owned());
        conditionals(here, said.iter().copied(), planned).iter().map(|(n, v)| format!("{n}={v}")).collect()
    }

    const YIELD: &str = "OMPI_MCA_mpi_yield_when_idle=1";
    const BTL: &str = "OMPI_MCA_btl=^ofi,openib,uct,usnic";
    const MTL: &str = "OMPI_MCA_mtl=^ofi,portals4,psm,psm2";

    #[test]
    fn each_is_set_when_it_is_so() {
        let here = |crowded, fabric| Circumstances { crowded, fabric, params: None };
        assert_eq!(shown(&here(false, true), &[], &[]), Vec::<String>::new());
        assert_eq!(shown(&here(true, true), &[], &[]), [YIELD]);
        assert_eq!(shown(&here(false, false), &[], &[]), [BTL, MTL]);
        assert_eq!(shown(&here(true, false), &[], &[]), [YIELD, BTL, MTL]);
    }

    #[test]
    fn what_people_have_said_in_variables_stays() {
        let here = Circumstances { crowded: true, fabric: false, params: None };
        for (said, want) in [
            ("OMPI_MCA_mpi_yield_when_idle", &[BTL, MTL][..]),
            ("OMPI_MCA_btl", &[YIELD]),
            ("OMPI_MCA_pml", &[YIELD]),
            ("OMPI_MCA_mtl_ofi_provider_include", &[YIELD]),
            ("FI_PROVIDER", &[YIELD]),
            ("OMPI_MCA_mca_base_param_files", &[YIELD]),
            ("OMPI_MCA_btl_tcp_if_include", &[YIELD, BTL, MTL]),
        ] {
            assert_eq!(shown(&here, &[said], &[]), want, "{said}");
        }
    }

    #[test]
    fn what_people_have_said_in_files_stays() {
        for (file, want) in [
            ("btl = self,tcp", &[YIELD][..]),
            ("pml=ucx", &[YIELD]),
            ("mtl_ofi_provider_include = tcp", &[YIELD]),
            ("mpi_yield_when_idle = 0", &[BTL, MTL]),
            ("# btl = self\n  pml = ^ucx # as packaged\nbtl_tcp_if_include = eth0", &[YIELD, BTL, MTL]),
            (
                "mtl = ^ofi\nbtl = \"^vader,ofi\"\nnonsense",
                &[YIELD, "OMPI_MCA_btl=^vader,ofi,openib,uct,usnic", "OMPI_MCA_mtl=^ofi,portals4,psm,psm2"],
            ),
        ] {
            let params = params(file);
            let here = Circumstances { crowded: true, fabric: false, params: Some(&params) };
            assert_eq!(shown(&here, &[], &[]), want, "{file}");
        }
    }

    #[test]
    fn what_the_plan_leaves_out_stays_left_out() {
        let here = Circumstances { crowded: false, fabric: false, params: None };
        assert_eq!(
            shown(&here, &[], &[("OMPI_MCA_btl", "^usnic"), ("OMPI_MCA_mtl", "psm2")]),
            ["OMPI_MCA_btl=^usnic,ofi,openib,uct"]
        );
        let params = params("btl = ^vader");
        let here = Circumstances { params: Some(&params), ..here };
        assert_eq!(
            shown(&here, &[], &[("OMPI_MCA_btl", "^usnic"), ("OMPI_MCA_mtl", "psm2")]),
            ["OMPI_MCA_btl=^usnic,vader,ofi,openib,uct"]
        );
    }

    #[test]
    fn all_are_parameters_of_open_mpi() {
        assert!(CONDITIONALS.iter().all(|one| one.name.starts_with(PREFIX)));
    }
}
