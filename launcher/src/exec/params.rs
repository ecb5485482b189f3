//! What files say to Open MPI's launchers, beside variables.

use std::path::{Path, PathBuf};

use muster_core::params::Params;
use muster_worker_agent::file::{PARAMS_BYTES_MAX, beginning};

use crate::discover::Surroundings;
use crate::run::program::{interpreted, on_path};

/// Whose files: in a home, and in an installation.
#[derive(Debug, Clone, Copy)]
pub(super) struct Whose {
    in_home: &'static str,
    installed: [&'static str; 2],
}

/// Those of Open MPI.
pub(super) const OPEN_MPI: Whose = Whose {
    in_home: ".openmpi/mca-params.conf",
    installed: ["openmpi-mca-params.conf", "openmpi-mca-params-override.conf"],
};
/// Those of Open MPI 5's runtime, which reads both.
pub(super) const RUNTIME: Whose =
    Whose { in_home: ".prte/mca-params.conf", installed: ["prte-mca-params.conf", "prte-mca-params-override.conf"] };
/// Folders of installations that do not follow from where their programs lie.
const FOLDERS: [&str; 3] = ["/etc/openmpi", "/etc/openmpi-x86_64", "/usr/local/etc"];

/// What a file in the user's home sets. Without ours in the environment it would count, so it is kept.
pub(super) fn of_user(site: &Surroundings, whose: Whose) -> Params {
    let mut params = Params::default();
    if let Some(home) = site.home() {
        add(&mut params, &site.path(home).join(whose.in_home));
    }
    params
}

/// Names of all variables of this process and of all parameters that files set which the command reads. Nothing when the command is
/// a script, which may say more itself.
pub(super) fn said(site: &Surroundings, argv: &[String]) -> Option<Vec<String>> {
    let program = argv.first()?;
    let program = if program.contains('/') {
        PathBuf::from(program)
    } else {
        on_path(site.var("PATH").unwrap_or_default(), program)?
    };
    if interpreted(&program).is_some() {
        return None;
    }
    Some(site.vars().map(|(name, _)| name.to_owned()).chain(names(site, program)).collect())
}

/// Names of all parameters that such a file sets, be it the user's, or of an installation that the program may belong to.
fn names(site: &Surroundings, program: PathBuf) -> Vec<String> {
    // The program may be a link to one of an installation that is elsewhere.
    let itself = program.canonicalize().ok();
    let prefix = |program: PathBuf| Some(program.parent()?.parent()?.to_owned());
    let prefixes = std::iter::once(program).chain(itself).filter_map(prefix);
    let prefixes = prefixes.chain(site.var("OPAL_PREFIX").map(PathBuf::from)).map(|prefix| prefix.join("etc"));
    let mut params = Params::default();
    for folder in prefixes.chain(FOLDERS.map(PathBuf::from)) {
        for whose in [OPEN_MPI, RUNTIME] {
            for file in whose.installed {
                add(&mut params, &site.path(&folder.to_string_lossy()).join(file));
            }
        }
    }
    let of_user = [of_user(site, OPEN_MPI), of_user(site, RUNTIME)];
    of_user.iter().chain([&params]).flat_map(|params| params.iter().map(|(name, _)| name.to_owned())).collect()
}

fn add(params: &mut Params, file: &Path) {
    if let Some(text) = beginning(file, PARAMS_BYTES_MAX) {
        params.add(&text);
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn parameters_are_found_in_homes_and_where_the_program_is_installed() {
        let root = tempfile::tempdir().unwrap();
        let write = |file: &str, text: &str| {
            let path = root.path().join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        write("home/.openmpi/mca-params.conf", "of_user = 1");
        write("home/.prte/mca-params.conf", "of_user_too = 1");
        write("opt/mpi/etc/openmpi-mca-params.conf", "# nothing\nof_program = 1");
        write("etc/openmpi/openmpi-mca-params.conf", "of_system = 1");
        write("usr/local/etc/openmpi-mca-params-override.conf", "of_all = 1");
        write("prefix/etc/prte-mca-params.conf", "of_prefix = 1");
        let found = |env: &[(&str, &str)], program: &str| {
            let env = env.iter().map(|(name, value)| (name.into(), value.into()));
            names(&Surroundings::new(env, root.path(), 1), program.into()).join(" ")
        };
        assert_eq!(found(&[], "/bin/mpirun"), "of_all of_system");
        assert_eq!(found(&[], "/opt/mpi/bin/mpirun"), "of_all of_program of_system");
        let env = [("HOME", "/home"), ("OPAL_PREFIX", "/prefix")];
        assert_eq!(found(&env, "/bin/mpirun"), "of_user of_user_too of_all of_prefix of_system");
    }

    #[test]
    fn what_a_script_says_is_not_known() {
        let folder = tempfile::tempdir().unwrap();
        let program = |name: &str, text: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, text).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
            path.to_string_lossy().into_owned()
        };
        let whole = program("mpirun", "\x7fELF");
        let script = program("mpiexec", "#!/bin/sh\nexec mpirun --mca btl_tcp_if_include eth0 \"$@\"\n");
        let env = [("PATH".into(), folder.path().into()), ("A".into(), "1".into())];
        let site = Surroundings::new(env, folder.path(), 1);
        let of = |program: &str| said(&site, &[program.to_owned()]);
        assert_eq!(of(&whole), Some(vec!["A".to_owned(), "PATH".to_owned()]));
        assert_eq!(of("mpirun"), of(&whole));
        assert_eq!((of(&script), of("mpiexec"), of("nothing")), (None, None, None));
    }
}
