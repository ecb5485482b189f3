//! `muster-rsh`, also under the names `ssh` and `rsh`: runs a command on a host through the agent there.
//!
//! It says nothing unless something is wrong, because an MPI launcher shows what it says among the job's output.

use std::ffi::OsString;
use std::io::{self, IsTerminal};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use muster_core::hosts::site::{PORT_DEFAULT, key_file_candidates, ssh_config_candidates, ssh_port};
use muster_core::plan::DEFAULT_JOB;
use muster_core::shell::{self, Request, Terminal, account};
use muster_protocol::hello::{Hello, Lane, RELEASE, Role, VERSION_MAX, VERSION_MIN};
use muster_protocol::message::{ShellEnd, ShellStart, ShellTell, TerminalSize};
use muster_protocol::{Epoch, Generation, HostIndex};
use muster_sys::identity::Identity;
use muster_sys::pty::{self, Raw};
use muster_transport::dial::{DialError, Dialed, Dialer};
use muster_transport::identity::JobKey;
use muster_transport::resolve::Resolver;
use muster_transport::tls;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::caller::{self, Gone};
use super::client::{self, Broken, Ends};
use super::desk::{self, Ask, DESK, Told};

/// Names under which a program is a remote shell; the last one is what the first generation of MPI operators called.
const NAMES: [&str; 4] = ["muster-rsh", "ssh", "rsh", "kubexec.sh"];
/// Where the job key lies, in the environment of commands that an agent has started: their remote shells dial siblings of that
/// agent. These names are not those of options, which never reach ranks.
pub const KEY_FILE: &str = "MUSTER_SHELL_KEY_FILE";
/// The port of the siblings.
pub const PORT: &str = "MUSTER_SHELL_PORT";
/// The job that they serve.
pub const JOB: &str = "MUSTER_SHELL_JOB";
/// Exit status for failures of our own, as ssh has it.
const OWN_FAILURE: u8 = 255;
/// Exit status of a program whose reader has gone: 128 and `SIGPIPE`.
const BROKEN_PIPE: u8 = 141;
/// Time until a host must have answered, when nothing else is said: its pod may still be pulling its image.
const CONNECT_LIMIT: Duration = Duration::from_secs(300);
/// The same for daemons that an agent has started: their siblings' agents answered when the launcher began.
const SIBLING_LIMIT: Duration = Duration::from_secs(10);
/// Time for one attempt.
const ATTEMPT_LIMIT: Duration = Duration::from_secs(5);
/// Time between two attempts.
const PAUSE: Duration = Duration::from_millis(250);
/// Time after which somebody who waits is told what for.
const PATIENCE: Duration = Duration::from_secs(10);
/// Size of a terminal that nobody knows the size of.
const SIZE_DEFAULT: TerminalSize = TerminalSize { rows: 24, columns: 80 };

/// Whether a program that was called by this name is a remote shell.
pub fn is_named(program: &OsString) -> bool {
    Path::new(program).file_name().is_some_and(|name| NAMES.iter().any(|known| name == *known))
}

/// Runs it with the arguments behind the program's name.
pub fn run(arguments: &[OsString]) -> ExitCode {
    muster_sys::pipe::close_inherited();
    muster_sys::signals::ignore_broken_pipe();
    let words: Vec<&[u8]> = arguments.iter().map(|word| word.as_bytes()).collect();
    let request = match shell::parse(&words) {
        Ok(request) => request,
        Err(error) => return failed(&error),
    };
    if request.version {
        complain(&format!("muster-rsh {RELEASE}"));
        return ExitCode::SUCCESS;
    }
    if let Some(code) = at_desk(&request) {
        return code;
    }
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return failed(&error),
    };
    let code = runtime.block_on(obey(&request));
    // Threads may still wait for a terminal or a pipe that nobody uses any more.
    runtime.shutdown_background();
    code
}

fn complain(text: &str) {
    use std::io::Write;
    // Without anybody to tell there is nothing left to do.
    let _ = writeln!(io::stderr(), "{text}");
}

fn failed(error: &dyn std::fmt::Display) -> ExitCode {
    complain(&format!("muster-rsh: {error}"));
    ExitCode::from(OWN_FAILURE)
}

/// Leaves the command to the launcher on this machine, if there is one: it holds the connections already. A desk that is not
/// here is that of a launcher elsewhere, which has sent its environment to its ranks.
fn at_desk(request: &Request) -> Option<ExitCode> {
    let desk = std::env::var_os(DESK).map(PathBuf::from).filter(|path| path.exists())?;
    if wants_terminal(request) {
        return None;
    }
    let (stdin, stdout, stderr) = (io::stdin(), io::stdout(), io::stderr());
    let input = !request.no_input;
    let mut descriptors = if input { vec![stdin.as_fd()] } else { Vec::new() };
    descriptors.extend([stdout.as_fd(), stderr.as_fd()]);
    let ask = Ask {
        host: request.host.clone(),
        port: request.port,
        user: request.user.clone(),
        command: request.command.clone().map(Into::into),
        input,
    };
    Some(match desk::hand_over(&desk, &ask, &descriptors) {
        Ok(told) if told.here => run_here(request),
        Ok(told) => {
            if let Some(message) = told.message {
                complain(&format!("muster-rsh: {message}"));
            }
            ExitCode::from(told.code)
        }
        Err(error) => failed(&format!("{}: the launcher at {} is gone: {error}", request.host, desk.display())),
    })
}

/// Becomes the command, in the user's shell, as it would run on another host.
fn run_here(request: &Request) -> ExitCode {
    let passwd = std::fs::read("/etc/passwd").unwrap_or_default();
    let home = std::env::var("HOME").ok();
    let account = account(&String::from_utf8_lossy(&passwd), muster_sys::proc::uid(), home.as_deref());
    let argv: Vec<OsString> =
        account.argv(request.command.as_deref()).into_iter().map(std::os::unix::ffi::OsStringExt::from_vec).collect();
    let error = std::os::unix::process::CommandExt::exec(std::process::Command::new(&argv[0]).args(&argv[1..]));
    failed(&format!("{}: the user's shell {} cannot be run: {error}", request.host, account.shell))
}

async fn obey(request: &Request) -> ExitCode {
    let mut stop = match Stop::new() {
        Ok(stop) => stop,
        Err(error) => return failed(&error),
    };
    tokio::select! {
        biased;
        signal = stop.next() => ExitCode::from(128u8.saturating_add(signal)),
        code = converse(request) => code,
    }
}

/// Signals that end us, and with the connection everything on the host.
struct Stop(Vec<(Signal, u8)>);

impl Stop {
    fn new() -> io::Result<Self> {
        let kinds = [SignalKind::hangup(), SignalKind::interrupt(), SignalKind::quit(), SignalKind::terminate()];
        let heard = kinds.into_iter().filter(|kind| !muster_sys::signals::is_ignored(kind.as_raw_value()));
        let one = |kind: SignalKind| Ok((signal(kind)?, u8::try_from(kind.as_raw_value()).unwrap_or(0)));
        Ok(Self(heard.map(one).collect::<io::Result<_>>()?))
    }

    async fn next(&mut self) -> u8 {
        std::future::poll_fn(|cx| {
            for (signal, number) in &mut self.0 {
                if signal.poll_recv(cx).is_ready() {
                    return std::task::Poll::Ready(*number);
                }
            }
            std::task::Poll::Pending
        })
        .await
    }
}

async fn converse(request: &Request) -> ExitCode {
    let caller = Identity::of_parent();
    let come_to_nothing = |gone: Gone| {
        if let (Some(caller), Some(command)) = (&caller, &request.command) {
            caller::end_if_it_would_wait(caller, command, gone);
        }
    };
    let job = told("MUSTER_OPT_JOB", JOB).map_or_else(|| DEFAULT_JOB.to_owned(), |(_, job)| job);
    let hello = hello(&request.host, job);
    let dialed = match connect(request, &hello).await {
        Ok(dialed) => dialed,
        Err(error) => {
            let code = failed(&error);
            come_to_nothing(Gone::Other);
            return code;
        }
    };
    // From before the size is read: a change after that is told.
    let resized = wants_terminal(request).then(|| signal(SignalKind::window_change()).ok()).flatten();
    let (start, raw) = start(request);
    let ends = match ends(start.input) {
        Ok(ends) => ends,
        Err(error) => return failed(&error),
    };
    let (tell, told) = mpsc::unbounded_channel();
    if let Some(resized) = resized {
        tokio::spawn(follow_size(resized, tell));
    }
    let result = client::run(dialed, &hello, &start, ends, told).await;
    drop(raw);
    let gone = match &result {
        Err(Broken::Silent | Broken::Failed(_)) => Some(Gone::Lost),
        Err(Broken::Closed | Broken::Nonsense(_)) | Ok(ShellEnd::NotStarted { .. }) => Some(Gone::Other),
        _ => None,
    };
    let code = report(&request.host, result);
    gone.into_iter().for_each(come_to_nothing);
    code
}

fn report(host: &str, result: Result<ShellEnd, Broken>) -> ExitCode {
    let told = verdict(host, result);
    if let Some(message) = told.message {
        complain(&format!("muster-rsh: {message}"));
    }
    ExitCode::from(told.code)
}

/// What a remote shell exits with and says when its command has ended this way.
pub fn verdict(host: &str, result: Result<ShellEnd, Broken>) -> Told {
    let (code, why) = match result {
        Ok(ShellEnd::Exited { code }) => return Told { code, message: None, here: false },
        // As for any program in a pipe whose reader has left.
        Err(Broken::Output { source, .. }) if source.kind() == io::ErrorKind::BrokenPipe => {
            return Told { code: BROKEN_PIPE, message: None, here: false };
        }
        Ok(ShellEnd::Signaled { signal, core }) => {
            let dumped = if core { ", core dumped" } else { "" };
            let name = muster_sys::signals::name(i32::from(signal)).unwrap_or("unknown");
            let why = format!("the command was ended by signal {signal} ({name}){dumped}");
            (128u8.saturating_add(signal), why)
        }
        Ok(ShellEnd::NotStarted { why, code }) => (code, why),
        Err(error) => (OWN_FAILURE, error.to_string()),
    };
    Told { code, message: Some(format!("{host}: {why}")), here: false }
}

/// The hello of a remote shell for this host.
pub fn hello(host: &str, job: String) -> Hello {
    Hello {
        version_min: VERSION_MIN,
        version_max: VERSION_MAX,
        release: RELEASE.to_owned(),
        role: Role::Shell,
        lane: Lane::Bulk,
        job,
        epoch: Epoch(0),
        from: muster_sys::proc::hostname(),
        incarnation: crate::agent::incarnation(),
        you: HostIndex(0),
        your_name: host.to_owned(),
        generation: Generation(0),
    }
}

/// Why no connection was tried.
#[derive(Debug, thiserror::Error)]
enum ConnectError {
    #[error(transparent)]
    Key(#[from] muster_transport::identity::JobKeyError),
    #[error("{name} is {value:?}, which is no {wanted}")]
    Setting { name: &'static str, value: String, wanted: &'static str },
    #[error(transparent)]
    Dial(#[from] DialError),
}

async fn connect(request: &Request, hello: &Hello) -> Result<Dialed, ConnectError> {
    let identity = key(request)?.as_ref().map(JobKey::identity);
    let dialer = Dialer::new(Arc::new(Resolver::default()), identity.as_ref().map(tls::connector));
    let port = match request.port {
        Some(port) => port,
        None => configured_port()?,
    };
    let usual = if std::env::var_os(PORT).is_some() { SIBLING_LIMIT } else { CONNECT_LIMIT };
    let limit = request.connect_timeout_s.map_or(usual, |s| Duration::from_secs(s.into()));
    let begun = Instant::now();
    let mut told = false;
    loop {
        let left = limit.saturating_sub(begun.elapsed());
        match dialer.dial(&request.host, port, hello, ATTEMPT_LIMIT.min(left)).await {
            Ok(dialed) => return Ok(dialed),
            Err(error) if !error.failure.retryable() || begun.elapsed() + PAUSE >= limit => return Err(error.into()),
            Err(error) => {
                if !told && (request.verbose || begun.elapsed() > PATIENCE) {
                    complain(&format!("muster-rsh: waiting for {error}"));
                    told = true;
                }
            }
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// A setting of the user's, else the agent's that has started us.
fn told(own: &'static str, of_agent: &'static str) -> Option<(&'static str, String)> {
    [own, of_agent].into_iter().find_map(|name| Some((name, std::env::var(name).ok().filter(|v| !v.is_empty())?)))
}

fn key(request: &Request) -> Result<Option<JobKey>, ConnectError> {
    let home = std::env::var("HOME").ok();
    if let Some((_, path)) = told("MUSTER_OPT_KEY_FILE", KEY_FILE) {
        return Ok(Some(JobKey::read(Path::new(&path))?));
    }
    // An identity that ssh would be told of may be meant for other hosts; one that is not there is none.
    let candidates = request.keys.iter().cloned().chain(key_file_candidates(home.as_deref()));
    let found = candidates.into_iter().find(|path| Path::new(path).exists());
    Ok(found.map(|path| JobKey::read(Path::new(&path))).transpose()?)
}

fn configured_port() -> Result<u16, ConnectError> {
    if let Some((name, value)) = told("MUSTER_OPT_PORT", PORT) {
        return value.parse().map_err(|_| ConnectError::Setting { name, value, wanted: "port" });
    }
    let home = std::env::var("HOME").ok();
    let read = |path: String| ssh_port(&String::from_utf8_lossy(&std::fs::read(path).ok()?));
    Ok(ssh_config_candidates(home.as_deref()).into_iter().find_map(read).unwrap_or(PORT_DEFAULT))
}

fn is_terminal_here(request: &Request) -> bool {
    io::stdin().is_terminal() && !request.no_input
}

fn wants_terminal(request: &Request) -> bool {
    match request.terminal {
        Terminal::Auto => is_terminal_here(request) && request.command.is_none(),
        Terminal::Never => false,
        Terminal::Wanted => is_terminal_here(request),
        Terminal::Forced => true,
    }
}

/// What to run, and our own terminal in the state in which every key is passed on.
fn start(request: &Request) -> (ShellStart, Option<Raw>) {
    let stdin = io::stdin();
    let here = is_terminal_here(request);
    let wanted = wants_terminal(request);
    let size = || pty::size(stdin.as_fd()).map_or(SIZE_DEFAULT, as_size);
    let raw = if wanted && here { Raw::enter(stdin.as_fd()).ok() } else { None };
    let start = ShellStart {
        command: request.command.clone().map(Into::into),
        user: request.user.clone(),
        terminal: wanted.then(size),
        term: if wanted { std::env::var("TERM").ok() } else { None },
        input: !request.no_input,
    };
    (start, raw)
}

fn as_size(size: pty::Size) -> TerminalSize {
    TerminalSize { rows: size.rows, columns: size.columns }
}

fn ends(input: bool) -> io::Result<Ends> {
    Ok(Ends {
        stdin: if input { Some(io::stdin().as_fd().try_clone_to_owned()?) } else { None },
        stdout: io::stdout().as_fd().try_clone_to_owned()?,
        stderr: io::stderr().as_fd().try_clone_to_owned()?,
    })
}

/// Tells the other side of every change of our terminal's size.
async fn follow_size(mut resized: Signal, tell: mpsc::UnboundedSender<ShellTell>) {
    while resized.recv().await.is_some() {
        if let Ok(size) = pty::size(io::stdin().as_fd())
            && tell.send(ShellTell::Resize { size: as_size(size) }).is_err()
        {
            return;
        }
    }
}
