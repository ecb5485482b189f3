//! Which programs of a job share a world.
//!
//! A world is what its ranks take for the whole job (`MPI_COMM_WORLD`), a process group of its own. Programs of one bootstrap
//! share one; those of different ones could not find each other, and nobody waits for ranks of another world.

use std::fmt;

use muster_protocol::message::Bootstrap as Served;
use serde::Serialize;

use super::detect::Sign;
use super::{AppSpec, Bootstrap, Placed};

/// How the ranks of a program find each other, and why so.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Choice {
    /// How.
    pub bootstrap: Bootstrap,
    /// Why.
    pub because: Ground,
    /// Whether that is beyond doubt.
    pub certain: bool,
}

/// Why a program gets its bootstrap.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Ground {
    /// The user says so.
    Asked,
    /// Its files say so, in these words.
    Found(String),
    /// Nothing is known of it, and the other programs have this one.
    Others,
    /// Nothing is known of any program.
    Nothing,
}

impl fmt::Display for Ground {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Asked => "asked for",
            Self::Found(because) => because,
            Self::Others => "nothing is known of it; as the others",
            Self::Nothing => "nothing is known of it",
        })
    }
}

/// Nobody can say which world a program belongs to.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "nothing tells the bootstrap of program {position} ({program}), and the others differ: {}; say it with --bootstrap pmi, pmix or none \
     among the options of this program",
    .others.join("; ")
)]
pub struct Unclear {
    /// Its position, from 1.
    pub position: usize,
    /// The program.
    pub program: String,
    /// What the others have.
    pub others: Vec<String>,
}

/// Programs of one bootstrap and their ranks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct World {
    /// How its ranks find each other.
    pub bootstrap: Bootstrap,
    /// Ranks that never use it are an error.
    pub insists: bool,
    /// A PMIx library to try before others.
    pub pmix_preferred: Option<String>,
    /// Positions of its programs in [`super::Plan::apps`].
    pub apps: Vec<u32>,
    /// Ranks of each of them.
    pub app_ranks: Vec<u32>,
    /// Where its ranks run, in their order; programs are counted within this world.
    #[serde(skip)]
    pub placed: Vec<Placed>,
}

impl World {
    /// What agents serve its ranks.
    pub fn served(&self) -> Served {
        match self.bootstrap {
            Bootstrap::Pmix => Served::Pmix,
            Bootstrap::Auto | Bootstrap::Pmi => Served::Pmi,
            Bootstrap::None => Served::None,
        }
    }
}

/// The bootstrap of every program. `signs` are those found, by position; a program without one is taken for what the others are,
/// where they agree.
pub(super) fn choose(apps: &[AppSpec], signs: &[Option<Sign>]) -> Result<Vec<Choice>, Unclear> {
    let known = |(at, app): (usize, &AppSpec)| match (app.bootstrap, signs.get(at).and_then(Option::as_ref)) {
        (Bootstrap::Auto, Some(sign)) => Some(Choice {
            bootstrap: sign.bootstrap,
            because: Ground::Found(sign.because.clone()),
            certain: sign.certain,
        }),
        (Bootstrap::Auto, None) => None,
        (bootstrap, _) => Some(Choice { bootstrap, because: Ground::Asked, certain: true }),
    };
    let known: Vec<Option<Choice>> = apps.iter().enumerate().map(known).collect();
    // The first program of each kind. One without a bootstrap says nothing about the others: it is asked for beside ranks of an MPI.
    let mut kinds: Vec<(usize, &Choice)> = Vec::new();
    for (at, choice) in known.iter().enumerate().filter_map(|(at, choice)| Some((at, choice.as_ref()?))) {
        if choice.bootstrap != Bootstrap::None && kinds.iter().all(|(_, kind)| kind.bootstrap != choice.bootstrap) {
            kinds.push((at, choice));
        }
    }
    let unknown = known.iter().position(Option::is_none);
    let others = match (kinds.as_slice(), unknown) {
        ([], _) => Choice { bootstrap: Bootstrap::Auto, because: Ground::Nothing, certain: false },
        ([(_, only)], _) => Choice { bootstrap: only.bootstrap, because: Ground::Others, certain: false },
        (_, Some(at)) => {
            let others =
                kinds.iter().map(|(at, kind)| format!("program {} has {} ({})", at + 1, kind.bootstrap, kind.because));
            let (position, program) = (at + 1, apps[at].program().to_owned());
            return Err(Unclear { position, program, others: others.collect() });
        }
        // Nobody asks.
        ([(_, first), ..], None) => (*first).clone(),
    };
    Ok(known.iter().map(|choice| choice.as_ref().unwrap_or(&others).clone()).collect())
}

/// The worlds in the order of their first programs. `ranks` are those of all programs, as they are placed.
pub(super) fn divide(
    apps: &[AppSpec],
    signs: &[Option<Sign>],
    choices: &[Choice],
    (ranks, hosts): (&[Placed], usize),
) -> Vec<World> {
    let mut worlds: Vec<World> = Vec::new();
    // World of each program, and its position there.
    let mut home = Vec::with_capacity(apps.len());
    for (at, (app, choice)) in apps.iter().zip(choices).enumerate() {
        let known = worlds.iter().position(|world| world.bootstrap == choice.bootstrap);
        let index = known.unwrap_or_else(|| {
            worlds.push(World {
                bootstrap: choice.bootstrap,
                // A program that links MPICH may well be run for its help text only; one of Open MPI that is not heard of has
                // become as many jobs of one rank, and has exited well.
                insists: false,
                pmix_preferred: None,
                apps: Vec::new(),
                app_ranks: Vec::new(),
                placed: Vec::new(),
            });
            worlds.len() - 1
        });
        let world = &mut worlds[index];
        home.push((index, world.apps.len() as u32));
        // A program that links MPICH may well be run for its help text only; one of Open MPI that is not heard of has become as
        // many jobs of one rank, and has ended well.
        let linked = choice.bootstrap == Bootstrap::Pmix && choice.certain;
        world.insists |= app.bootstrap == Bootstrap::Pmi || linked;
        if let (Ground::Found(_), Some(Some(sign))) = (&choice.because, signs.get(at)) {
            world.pmix_preferred = world.pmix_preferred.take().or_else(|| sign.pmix_library.clone());
        }
        world.apps.push(at as u32);
        world.app_ranks.push(0);
    }
    let mut local = vec![vec![0; hosts]; worlds.len()];
    for one in ranks {
        let (index, app) = home[one.app as usize];
        let local_rank = &mut local[index][one.host.0 as usize];
        worlds[index].placed.push(Placed { host: one.host, local_rank: *local_rank, app });
        worlds[index].app_ranks[app as usize] += 1;
        *local_rank += 1;
    }
    worlds
}

#[cfg(test)]
mod tests {
    use muster_protocol::HostIndex;

    use super::*;
    use crate::plan::detect::of_library;

    fn app(program: &str, bootstrap: Bootstrap) -> AppSpec {
        AppSpec { argv: vec![program.to_owned()], bootstrap, ..AppSpec::default() }
    }

    fn sign(program: &str, soname: &str) -> Option<Sign> {
        of_library(program, soname)
    }

    fn chosen(asked: &[Bootstrap], signs: &[Option<Sign>]) -> Result<Vec<Bootstrap>, String> {
        let apps: Vec<AppSpec> = asked.iter().map(|bootstrap| app("./p", *bootstrap)).collect();
        let choices = choose(&apps, signs).map_err(|unclear| unclear.to_string())?;
        Ok(choices.into_iter().map(|choice| choice.bootstrap).collect())
    }

    #[test]
    fn each_program_gets_what_it_asks_for_or_links_and_else_what_the_others_have() {
        use Bootstrap::{Auto, None as Nothing, Pmi, Pmix};
        let (open, mpich) = (sign("./a", "libmpi.so.40"), sign("./b", "libmpi.so.12"));
        for (asked, signs, want) in [
            (vec![Auto, Auto], vec![None, None], vec![Auto, Auto]),
            (vec![Auto, Auto], vec![open.clone(), mpich.clone()], vec![Pmix, Pmi]),
            (vec![Auto, Auto], vec![None, open.clone()], vec![Pmix, Pmix]),
            (vec![Pmi, Auto], vec![None, None], vec![Pmi, Pmi]),
            (vec![Nothing, Auto], vec![None, None], vec![Nothing, Auto]),
            (vec![Nothing, Auto, Auto], vec![None, mpich.clone(), None], vec![Nothing, Pmi, Pmi]),
            // What is asked for goes before what is found.
            (vec![Pmi, Auto], vec![open.clone(), mpich.clone()], vec![Pmi, Pmi]),
        ] {
            assert_eq!(chosen(&asked, &signs), Ok(want), "{asked:?} {signs:?}");
        }
        insta::assert_snapshot!(chosen(&[Auto, Pmi, Auto], &[open, mpich, None]).unwrap_err(), @"nothing tells the bootstrap of program 3 (./p), and the others differ: program 1 has pmix (./a links libmpi.so.40 (Open MPI)); program 2 has pmi (asked for); say it with --bootstrap pmi, pmix or none among the options of this program");
    }

    #[test]
    fn programs_of_one_bootstrap_share_a_world_in_which_everything_is_counted_anew() {
        let apps = [Bootstrap::Auto, Bootstrap::Auto, Bootstrap::None, Bootstrap::Auto].map(|b| app("./p", b));
        let library = Some(Sign { pmix_library: Some("/own".into()), ..sign("./d", "libmpi.so.40").unwrap() });
        let signs = [sign("./a", "libmpi.so.40"), sign("./b", "libmpi.so.12"), None, library];
        let choices = choose(&apps, &signs).unwrap();
        let at = |host: u32, local_rank: u32, app: u32| Placed { host: HostIndex(host), local_rank, app };
        let ranks = [at(0, 0, 0), at(0, 1, 1), at(1, 0, 1), at(1, 1, 2), at(1, 2, 3), at(0, 2, 3)];
        let worlds = divide(&apps, &signs, &choices, (&ranks, 2));
        let shape: Vec<_> = worlds.iter().map(|w| (w.bootstrap, w.insists, w.apps.clone())).collect();
        let want =
            [(Bootstrap::Pmix, true, vec![0, 3]), (Bootstrap::Pmi, false, vec![1]), (Bootstrap::None, false, vec![2])];
        assert_eq!(shape, want);
        assert_eq!(worlds[0].placed, [at(0, 0, 0), at(1, 0, 1), at(0, 1, 1)]);
        assert_eq!((worlds[0].app_ranks.as_slice(), worlds[0].pmix_preferred.as_deref()), (&[1, 2][..], Some("/own")));
        assert_eq!(worlds[1].placed, [at(0, 0, 0), at(1, 0, 0)]);
        assert_eq!((worlds[2].placed.as_slice(), worlds[2].served()), (&[at(1, 0, 0)][..], Served::None));
        // Who asks for PMI by name insists on it, for all programs of its world.
        let apps = [Bootstrap::Auto, Bootstrap::Pmi].map(|b| app("./p", b));
        let choices = choose(&apps, &[]).unwrap();
        let worlds = divide(&apps, &[], &choices, (&[at(0, 0, 0), at(0, 1, 1)], 1));
        assert_eq!(worlds.iter().map(|w| (w.insists, w.apps.len())).collect::<Vec<_>>(), [(true, 2)]);
    }
}
