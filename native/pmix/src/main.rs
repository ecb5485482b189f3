//! `muster-pmix`: a PMIx server for the ranks of one host, started by the agent.

use std::io::Write as _;
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;
use std::process::ExitCode;
use std::sync::Arc;

use muster_pmix::host::Host;
use muster_pmix::last_words::LastWords;
use muster_pmix::library::Library;
use muster_pmix::link;
use muster_pmix::scratch::Scratch;
use muster_pmix::server::{Failure, Server};
use muster_pmix::{answers, process};
use muster_protocol::pmix::{BadMessage, FromPmix, ToPmix};

/// How long the library may take to end. It ends in milliseconds, or never.
const FINISH_SECONDS_MAX: u32 = 10;

const HELP: &str = "muster-pmix: a PMIx server for the ranks of one host, started by muster-agent

  --version         say which release this is, and which PMIx library it would load by itself
  --library FILE    say which version of PMIx FILE is, or why it does not serve
";

/// Why the server ends before the agent has ended it.
#[derive(Debug, thiserror::Error)]
enum Ended {
    #[error(transparent)]
    Link(#[from] BadMessage),
    #[error(transparent)]
    Failure(#[from] Failure),
    #[error("the agent's first message does not start the server")]
    NotStarted,
    #[error("the agent's message makes no sense now: {0}")]
    OutOfPlace(&'static str),
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        [] => serve(),
        ["--version"] => {
            say(&format!("muster-pmix {}\n", env!("CARGO_PKG_VERSION")));
            show(&default_libraries())
        }
        ["--library", name] => show(&[(*name).to_owned()]),
        ["--help" | "-h"] => say(HELP),
        _ => {
            // A message that nobody can read changes nothing.
            let _ = write!(std::io::stderr(), "{HELP}");
            ExitCode::from(2)
        }
    }
}

/// The library beside this program, and the one that the system's loader finds.
fn default_libraries() -> Vec<String> {
    let beside = std::env::current_exe().ok().and_then(|program| {
        let library = program.parent()?.parent()?.join("lib/libpmix.so.2");
        Some(library.to_string_lossy().into_owned())
    });
    beside.into_iter().chain(["libpmix.so.2".to_owned()]).collect()
}

fn show(names: &[String]) -> ExitCode {
    match Library::first_of(names) {
        Ok(library) => say(&format!("{} is PMIx {}\n", library.path, library.version.text)),
        Err(error) => {
            // As above.
            let _ = writeln!(std::io::stderr(), "muster-pmix: {error}");
            ExitCode::FAILURE
        }
    }
}

fn say(text: &str) -> ExitCode {
    match std::io::stdout().write_all(text.as_bytes()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

fn serve() -> ExitCode {
    process::die_of_panics();
    process::ignore_signals();
    process::outlive_the_parent();
    let mut reader = match process::inherited_socket() {
        Ok(socket) => UnixStream::from(socket),
        Err(error) => process::die(&error.to_string()),
    };
    // SAFETY: the only thread is this one.
    unsafe { process::clean_environment() };
    // The server starts before the writer does: a library reads the environment while it starts, and may change it.
    let scratch = Arc::new(Scratch::default());
    let guarded = reader.try_clone().and_then(|socket| scratch.guard(socket.into(), FINISH_SECONDS_MAX));
    if let Err(error) = guarded {
        process::die(&format!("the socket to the agent cannot be watched: {error}"));
    }
    let started = start(&mut reader, &scratch);
    let (Some((host, inbox)), Ok(mut writer)) = (Host::install(), reader.try_clone()) else {
        process::die("the socket to the agent cannot be used");
    };
    let writing = std::thread::spawn(move || link::write_all(&mut writer, &inbox, host));
    let (server, ended) = match started {
        Ok(Some(mut server)) => {
            host.tell(server.ready());
            let ended = follow(&mut reader, host, &mut server);
            (Some(server), ended)
        }
        Ok(None) => (None, Ok(())),
        Err(error) => (None, Err(error)),
    };
    let code = if let Err(error) = &ended {
        host.tell(FromPmix::Failed { why: error.to_string() });
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    };
    // From here on nothing may hang: the agent waits for this process, or is gone.
    process::die_after(FINISH_SECONDS_MAX);
    if ended.is_ok() {
        // The agent is gone. It removes them itself when it ends in order, and has done so then.
        scratch.remove();
    }
    host.leave_library();
    // A library that hangs would do so once more.
    if let Some(server) = server.filter(|_| !matches!(ended, Err(Ended::Failure(Failure::Late { .. })))) {
        server.finish();
    }
    host.close();
    // It cannot have panicked: that ends the process.
    let _ = writing.join();
    if process::is_closed(reader.as_fd(), 0) {
        // Once more: ranks may have written meanwhile, or the agent may only now be gone.
        scratch.remove();
    }
    code
}

/// The server as the agent's first message wants it; none when the agent has nothing to say.
fn start(reader: &mut UnixStream, scratch: &Scratch) -> Result<Option<Server>, Ended> {
    match link::next(reader)? {
        Some(ToPmix::Start { libraries, folder, host, scratch: folders }) => {
            scratch.set(folders);
            // SAFETY: apart from this thread there are those that the library itself starts, and the guard, which touches no
            // environment.
            let server = unsafe { Server::start(&libraries, &folder, &host) };
            Ok(Some(server?))
        }
        Some(_) => Err(Ended::NotStarted),
        None => Ok(None),
    }
}

/// Does what the agent says until it says no more.
fn follow(reader: &mut UnixStream, host: &'static Host, server: &mut Server) -> Result<(), Ended> {
    let mut last_words = LastWords::new(reader);
    while let Some(message) = link::next(reader)? {
        match answers::hand_on(host, message) {
            None => {}
            Some(ToPmix::Register { namespace, uid, gid }) => host.tell(server.register(&namespace, uid, gid)?),
            Some(ToPmix::Deregister { namespace }) => server.deregister(&namespace)?,
            Some(ToPmix::Fetch { token, proc }) => server.fetch(host, token, &proc),
            Some(ToPmix::Notify { event, procs }) => {
                for proc in &procs {
                    server.notify(event, proc)?;
                }
            }
            // It goes behind whatever the rank's last words leave for the writer.
            Some(ToPmix::Ended { proc }) => {
                last_words.wait();
                host.tell(FromPmix::Drained { proc });
            }
            Some(ToPmix::Start { .. }) => return Err(Ended::OutOfPlace("the server runs already")),
            Some(_) => return Err(Ended::OutOfPlace("an answer was not taken")),
        }
    }
    Ok(())
}
