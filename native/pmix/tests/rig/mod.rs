//! Plays the agents: starts servers, gives each a few ranks of a real program, and answers what they ask as one agent, or several,
//! would together.
#![expect(dead_code, reason = "every test program uses a part of it")]

mod answering;
pub(crate) mod places;
mod ports;

use std::collections::HashMap;
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use muster_protocol::pmix::{self, FromPmix, LENGTH_BYTES, LocalRank, Namespace, Proc, Run, ToPmix};
use tempfile::TempDir;

pub(crate) use answering::Told;
pub(crate) use places::Mpi;

/// Keeps a broken run from hanging; nothing is measured by it.
const PATIENCE: Duration = Duration::from_secs(120);
/// The program under test.
pub(crate) const SERVER: &str = env!("CARGO_BIN_EXE_muster-pmix");
/// Where the server finds its socket, as an agent hands it over.
const SOCKET: i32 = 17;

/// One server with its socket.
pub(crate) struct Server {
    child: Child,
    socket: UnixStream,
    pub(crate) folder: TempDir,
}

/// Servers that belong to one job.
pub(crate) struct Rig {
    pub(crate) servers: Vec<Server>,
    sender: Sender<(usize, Option<FromPmix>)>,
    messages: Receiver<(usize, Option<FromPmix>)>,
    ranks: HashMap<(String, u32), Rank>,
    /// On which server a rank is.
    homes: HashMap<(String, u32), usize>,
    mpi: Mpi,
    pub(crate) told: Told,
    answering: answering::State,
    extra: Vec<(String, String)>,
    ports: ports::Ports,
    /// The others are told of ranks that die.
    pub(crate) survivors_go_on: bool,
}

struct Rank {
    child: Child,
    output: std::path::PathBuf,
}

/// How a rank has ended.
#[derive(Debug)]
pub(crate) struct RankEnd {
    pub(crate) status: ExitStatus,
    pub(crate) output: String,
}

impl Rig {
    /// Starts as many servers as there are nodes, each with the first of these libraries that serves.
    pub(crate) fn start(nodes: usize, libraries: &[&str], mpi: Mpi) -> Self {
        Self::start_by(nodes, libraries, mpi, || Command::new(SERVER))
    }

    /// The same by another command, which becomes the server.
    pub(crate) fn start_by(nodes: usize, libraries: &[&str], mpi: Mpi, command: impl Fn() -> Command) -> Self {
        Self::start_with(nodes, libraries, mpi, command, &[])
    }

    /// The same for a job with folders that are removed when the agent is gone.
    pub(crate) fn start_with(
        nodes: usize,
        libraries: &[&str],
        mpi: Mpi,
        command: impl Fn() -> Command,
        scratch: &[String],
    ) -> Self {
        let (sender, messages) = channel();
        let mut rig = Self {
            servers: Vec::new(),
            sender,
            messages,
            ranks: HashMap::new(),
            homes: HashMap::new(),
            mpi,
            told: Told::default(),
            answering: answering::State::default(),
            extra: Vec::new(),
            ports: ports::Ports::claim(),
            survivors_go_on: false,
        };
        for node in 0..nodes {
            rig.start_server(&format!("node-{node}"), libraries, command(), scratch);
        }
        rig
    }

    /// A variable for the ranks.
    pub(crate) fn env(mut self, name: &str, value: &str) -> Self {
        self.extra.push((name.to_owned(), value.to_owned()));
        self
    }

    fn start_server(&mut self, host: &str, libraries: &[&str], mut command: Command, scratch: &[String]) {
        let index = self.servers.len();
        let (ours, theirs) = UnixStream::pair().expect("a socket pair");
        command.env("PMI_FD", SOCKET.to_string());
        let inherited = theirs.as_raw_fd();
        // SAFETY: one system call, which may be made between fork and exec; the descriptor is open until then. A copy stays open in
        // the server; where it is the same one already, it must be told to.
        unsafe {
            command.pre_exec(move || {
                let rc = if inherited == SOCKET {
                    libc::fcntl(SOCKET, libc::F_SETFD, 0)
                } else {
                    libc::dup2(inherited, SOCKET)
                };
                if rc == -1 { Err(std::io::Error::last_os_error()) } else { Ok(()) }
            });
        }
        let child = command.spawn().expect("muster-pmix starts");
        drop(theirs);
        let mut reader = ours.try_clone().expect("a second handle");
        let sender = self.sender.clone();
        std::thread::spawn(move || {
            loop {
                let message = receive(&mut reader);
                let ended = message.is_none();
                if sender.send((index, message)).is_err() || ended {
                    return;
                }
            }
        });
        let server = Server { child, socket: ours, folder: tempfile::tempdir().expect("a folder") };
        let folder = server.folder.path().to_string_lossy().into_owned();
        self.servers.push(server);
        let libraries = libraries.iter().map(ToString::to_string).collect();
        self.say(index, &ToPmix::Start { libraries, folder, host: host.to_owned(), scratch: scratch.to_vec() });
    }

    pub(crate) fn say(&mut self, server: usize, message: &ToPmix) {
        let bytes = pmix::packed(message).expect("it fits");
        self.servers[server].socket.write_all(&bytes).expect("the server reads");
    }

    /// The next message of whichever server; none when it has ended.
    pub(crate) fn next(&mut self) -> (usize, Option<FromPmix>) {
        self.messages.recv_timeout(PATIENCE).expect("a server says something")
    }

    /// Every server's version and library.
    pub(crate) fn ready(&mut self) -> Vec<(String, String)> {
        let mut all = vec![(String::new(), String::new()); self.servers.len()];
        for _ in 0..self.servers.len() {
            match self.next() {
                (index, Some(FromPmix::Ready { version, library })) => all[index] = (version, library),
                (index, other) => panic!("server {index} says {other:?}"),
            }
        }
        all
    }

    /// A namespace of so many ranks on each node.
    pub(crate) fn namespace(&self, name: &str, per_node: u32) -> Namespace {
        let nodes = self.servers.len() as u32;
        Namespace {
            name: name.into(),
            size: nodes * per_node,
            universe: nodes * per_node + 2,
            nodes: (0..nodes).map(|node| format!("node-{node}")).collect(),
            runs: (0..nodes).map(|node| Run { node, ranks: per_node }).collect(),
            node: 0,
            apps: vec![nodes * per_node],
            local: vec![],
            parent: None,
            first_node_rank: 0,
            folder: name.into(),
        }
    }

    /// Registers a namespace on all of its nodes and starts the ranks.
    pub(crate) fn launch(&mut self, namespace: &Namespace, program: &Path, arguments: &[String]) {
        self.launch_on(self.servers.len(), namespace, program, arguments);
    }

    /// The same on the first node alone.
    pub(crate) fn launch_here(&mut self, namespace: &Namespace, program: &Path, arguments: &[String]) {
        self.launch_on(1, namespace, program, arguments);
    }

    fn launch_on(&mut self, nodes: usize, namespace: &Namespace, program: &Path, arguments: &[String]) {
        // SAFETY: takes nothing, and cannot fail.
        let (uid, gid) = unsafe { (libc::geteuid(), libc::getegid()) };
        // All are registered before any rank runs: the first ones may ask for others at once.
        let mut registered = Vec::new();
        for node in 0..nodes {
            let mut here = Namespace { node: node as u32, ..namespace.clone() };
            let mut next = 0;
            for run in &namespace.runs {
                if run.node as usize == node {
                    let rank = |rank| LocalRank { rank, app: 0, cpus: vec![] };
                    here.local.extend((next..next + run.ranks).map(rank));
                }
                next += run.ranks;
            }
            self.say(node, &ToPmix::Register { namespace: here.clone(), uid, gid });
            let environments = self.registered(&namespace.name);
            assert_eq!(environments.len(), here.local.len());
            registered.extend(here.local.iter().map(|local| (node, local.rank)).zip(environments));
        }
        for ((node, rank), environment) in registered {
            let proc = Proc { namespace: namespace.name.clone(), rank };
            self.start_rank(node, &proc, &environment, program, arguments);
        }
    }

    fn registered(&mut self, name: &str) -> Vec<Vec<(String, String)>> {
        loop {
            match self.next() {
                (_, Some(FromPmix::Registered { namespace, environments })) => {
                    assert_eq!(namespace, name);
                    let pair =
                        |variable: muster_protocol::message::EnvVar| (variable.name, variable.value.expect("a value"));
                    return environments.into_iter().map(|all| all.into_iter().map(pair).collect()).collect();
                }
                (server, Some(message)) => self.answer(server, message),
                (server, None) => panic!("server {server} has ended"),
            }
        }
    }

    fn start_rank(
        &mut self,
        node: usize,
        proc: &Proc,
        environment: &[(String, String)],
        program: &Path,
        arguments: &[String],
    ) {
        let output = self.servers[node].folder.path().with_extension(format!("{}.{}", proc.namespace, proc.rank));
        let file = File::create(&output).expect("a file for output");
        let mut command = Command::new(program);
        command.args(arguments).env_clear().envs(self.mpi.environment()).envs(environment.iter().cloned());
        // Ranks that are killed leave their shared memory: in the server's folder it is removed with all the rest.
        for sort in ["vader", "sm"] {
            command.env(format!("OMPI_MCA_btl_{sort}_backing_directory"), self.servers[node].folder.path());
        }
        command.envs(self.ports.variables()).envs(self.extra.iter().cloned()).stdin(Stdio::null());
        command.stdout(file.try_clone().expect("a second handle")).stderr(file);
        let child = command.spawn().expect("the rank starts");
        self.homes.insert((proc.namespace.clone(), proc.rank), node);
        self.ranks.insert((proc.namespace.clone(), proc.rank), Rank { child, output });
    }

    /// Answers the servers until every rank has ended.
    pub(crate) fn finish(&mut self) -> HashMap<(String, u32), RankEnd> {
        let mut ends = HashMap::new();
        let started = std::time::Instant::now();
        while !self.ranks.is_empty() {
            assert!(started.elapsed() < PATIENCE, "ranks have not ended; told so far: {:?}", self.told);
            if let Ok((server, message)) = self.messages.recv_timeout(Duration::from_millis(20)) {
                let message = message.unwrap_or_else(|| panic!("server {server} has ended"));
                self.answer(server, message);
                continue;
            }
            let keys: Vec<_> = self.ranks.keys().cloned().collect();
            for key in keys {
                let Some(rank) = self.ranks.get_mut(&key) else { continue };
                if let Some(status) = rank.child.try_wait().expect("its status") {
                    let output = std::fs::read_to_string(&rank.output).expect("its output");
                    let _ = std::fs::remove_file(&rank.output);
                    self.ranks.remove(&key);
                    let proc = Proc { namespace: key.0.clone(), rank: key.1 };
                    self.told.ended += 1;
                    self.say(self.homes[&key], &ToPmix::Ended { proc });
                    if self.survivors_go_on && !status.success() {
                        self.announce(&key);
                    }
                    ends.insert(key, RankEnd { status, output });
                }
            }
        }
        // Whatever they have said comes before this.
        while self.told.drained < self.told.ended {
            match self.next() {
                (server, Some(message)) => self.answer(server, message),
                (server, None) => panic!("server {server} has ended"),
            }
        }
        ends
    }

    /// Kills the ranks that still run, as an agent does after an abort.
    pub(crate) fn kill_ranks(&mut self) {
        for rank in self.ranks.values_mut() {
            let _ = rank.child.kill();
        }
    }

    /// Closes a server's socket and waits for its end.
    pub(crate) fn close(&mut self, server: usize) -> ExitStatus {
        self.servers[server].socket.shutdown(std::net::Shutdown::Write).expect("it can be closed");
        self.servers[server].child.wait().expect("its status")
    }

    pub(crate) fn pid(&self, server: usize) -> u32 {
        self.servers[server].child.id()
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        for rank in self.ranks.values_mut() {
            let _ = rank.child.kill();
            let _ = rank.child.wait();
            let _ = std::fs::remove_file(&rank.output);
        }
        for server in &mut self.servers {
            let _ = server.socket.shutdown(std::net::Shutdown::Both);
            let _ = server.child.wait();
        }
    }
}

fn receive(reader: &mut UnixStream) -> Option<FromPmix> {
    let mut head = [0; LENGTH_BYTES];
    reader.read_exact(&mut head).ok()?;
    let mut body = vec![0; pmix::length(head).expect("a length")];
    reader.read_exact(&mut body).ok()?;
    Some(pmix::unpacked(&body).expect("a message"))
}
