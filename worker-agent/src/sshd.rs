//! The agent under the name `sshd`: an image in which it is installed as `/usr/sbin/sshd` needs no other change.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;
use muster_core::exit::Outcome;
use muster_core::shell::ServerRequest;

use crate::setup::Options;

/// The file whose name tells that a host key is the one that launcher and workers share; any other is this host's alone.
const SHARED_KEY: &str = "id_rsa";

/// Whether a program that was called by this name stands in for an ssh server.
pub fn is_named(program: &OsString) -> bool {
    Path::new(program).file_name().is_some_and(|name| name == "sshd")
}

/// What a server's command line comes to.
pub struct Server {
    /// The agent's options.
    pub options: Options,
    /// Where its process id is to be written.
    pub pid_file: Option<PathBuf>,
    /// Things worth telling that are no errors.
    pub notes: Vec<String>,
}

/// Reads the arguments behind the program's name; an exit status when there is nothing to serve.
pub fn server(arguments: &[OsString]) -> Result<Server, ExitCode> {
    let words: Vec<String> = arguments.iter().map(|word| word.to_string_lossy().into_owned()).collect();
    let read = ServerRequest::parse(&words).map_err(|e| e.to_string()).and_then(|mut request| {
        if let Some(file) = request.config.clone() {
            let text = std::fs::read(&file).map_err(|e| format!("-f {file}: cannot be read: {e}"))?;
            request.read_config(&file, &String::from_utf8_lossy(&text)).map_err(|e| e.to_string())?;
        }
        Ok(request)
    });
    match read {
        Ok(request) if request.test => Err(ExitCode::SUCCESS),
        Ok(request) => Ok(serve(request)),
        Err(error) => {
            crate::teller::tell(format!("sshd (muster-agent): {error}\n"));
            crate::teller::flush(std::time::Duration::from_secs(1));
            Err(ExitCode::from(Outcome::Usage.code()))
        }
    }
}

fn serve(request: ServerRequest) -> Server {
    // Flags of the agent that are not the server's come from the environment, as ever.
    let mut options = Options::parse_from(["muster-agent"]);
    options.port = request.port.or(options.port);
    let home = std::env::var("HOME").ok();
    let mounted = muster_core::hosts::site::key_file_candidates(home.as_deref());
    if options.key_file.is_none() && !mounted.iter().any(|path| Path::new(path).exists()) {
        let shared = request.host_keys.iter().map(PathBuf::from);
        options.key_file = shared.filter(|path| path.ends_with(SHARED_KEY)).find(|path| path.exists());
    }
    let mut notes = Vec::new();
    if !request.ignored.is_empty() {
        notes.push(format!("settings of an ssh server without effect here: {}", request.ignored.join(", ")));
    }
    if !request.foreground {
        notes.push("without -D an ssh server goes into the background; the agent stays".to_owned());
    }
    Server { options, pid_file: request.pid_file.map(PathBuf::from), notes }
}

/// The file with our process id, which goes with this.
pub struct PidFile(PathBuf);

impl PidFile {
    /// Writes it; a server that cannot runs without.
    pub fn write(path: PathBuf) -> Option<Self> {
        match std::fs::write(&path, format!("{}\n", std::process::id())) {
            Ok(()) => Some(Self(path)),
            Err(error) => {
                tracing::warn!(%error, file = %path.display(), "the process id cannot be written");
                None
            }
        }
    }
}

impl Drop for PidFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}
