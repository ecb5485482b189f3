//! The command line of a remote shell, as `ssh` and `rsh` take it and as MPI launchers write it.
//!
//! Launchers put options before and behind the host, and everything after them is the command: its words are joined with
//! single blanks, quotes and leading blanks included, and a shell on the host reads the result. Source of the letters:
//! ssh(1) of OpenSSH 9 and rsh(1); what Open MPI, MPICH and Intel MPI pass was recorded from them.

use thiserror::Error;

/// Letters of options that stand alone.
const FLAGS: &[u8] = b"46AaCfGgKkMNnqsTtVvXxYyd";
/// Letters of options that take a value, in the same word or the next one.
const VALUED: &[u8] = b"BbcDEeFIiJLlmOoPpQRSWw";

/// Whether the command is to have a terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Terminal {
    /// When there is no command and our own standard input is one.
    #[default]
    Auto,
    /// Never (`-T`).
    Never,
    /// When our own standard input is one (`-t`).
    Wanted,
    /// Always (`-tt`).
    Forced,
}

/// What was asked for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Request {
    /// Where to run it.
    pub host: String,
    /// As whom, if that was said (`-l USER`, `USER@host`).
    pub user: Option<String>,
    /// The agent's port, if that was said.
    pub port: Option<u16>,
    /// Files with the job key (`-i FILE`), in the order of the command line.
    pub keys: Vec<String>,
    /// The command for the host's shell; without one the user wants an interactive shell.
    pub command: Option<Vec<u8>>,
    /// Whether to make a terminal.
    pub terminal: Terminal,
    /// Standard input is `/dev/null` (`-n`).
    pub no_input: bool,
    /// Seconds until connecting is given up (`-o ConnectTimeout=N`).
    pub connect_timeout_s: Option<u32>,
    /// Say more (`-v`).
    pub verbose: bool,
    /// Only the version was asked for (`-V`).
    pub version: bool,
}

/// Why a command line cannot be obeyed.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ArgsError {
    /// Nobody to talk to.
    #[error("no host is named; usage: muster-rsh [OPTIONS] [USER@]HOST [COMMAND…]")]
    NoHost,
    /// A letter that neither ssh nor rsh knows.
    #[error("unknown option -{0}; options of ssh are accepted, most of them without effect")]
    Unknown(char),
    /// An option at the end of the line.
    #[error("option -{0} needs a value")]
    NoValue(char),
    /// A value that is none.
    #[error("{option}: {value:?} is not {wanted}")]
    Value {
        /// The option as it was written.
        option: String,
        /// Its value.
        value: String,
        /// What it should be.
        wanted: &'static str,
    },
    /// Something that must be readable is not.
    #[error("the host and the options before the command must be UTF-8: {0:?}")]
    Encoding(String),
}

/// Reads the words after the program's own name.
pub fn parse<W: AsRef<[u8]>>(words: &[W]) -> Result<Request, ArgsError> {
    let mut request = Request::default();
    let mut words = Words { left: words.iter().map(AsRef::as_ref).collect() };
    request.options(&mut words)?;
    if request.version {
        return Ok(request);
    }
    let target = words.next().ok_or(ArgsError::NoHost)?;
    request.target(text(target)?)?;
    // Per-host ports come behind the host.
    request.options(&mut words)?;
    let command = words.left.make_contiguous().join(&b' ');
    request.command = (!words.left.is_empty()).then(|| attached(command));
    Ok(request)
}

/// Without tree spawn Open MPI tells its daemons to leave their remote shell. Then nobody would end them with it, so they stay;
/// their launcher waits for neither.
fn attached(command: Vec<u8>) -> Vec<u8> {
    const LEAVE: &[u8] = b" --daemonize";
    let find = |what: &[u8]| command.windows(what.len()).position(|window| window == what);
    let mut words = command.split(|byte| byte.is_ascii_whitespace() || *byte == b';');
    let of_open_mpi = words.any(|word| {
        let name = word.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
        name == b"orted" || name == b"prted"
    });
    match find(LEAVE).filter(|_| of_open_mpi) {
        Some(at) if matches!(command.get(at + LEAVE.len()), None | Some(b' ')) => {
            [&command[..at], &command[at + LEAVE.len()..]].concat()
        }
        _ => command,
    }
}

struct Words<'a> {
    left: std::collections::VecDeque<&'a [u8]>,
}

impl<'a> Words<'a> {
    fn next(&mut self) -> Option<&'a [u8]> {
        self.left.pop_front()
    }
}

fn text(bytes: &[u8]) -> Result<&str, ArgsError> {
    std::str::from_utf8(bytes).map_err(|_| ArgsError::Encoding(String::from_utf8_lossy(bytes).into_owned()))
}

impl Request {
    fn options(&mut self, words: &mut Words<'_>) -> Result<(), ArgsError> {
        while let Some(word) = words.left.front().filter(|w| w.len() > 1 && w[0] == b'-').copied() {
            words.next();
            if word == b"--" {
                break;
            }
            let mut letters = &word[1..];
            while let Some((letter, rest)) = letters.split_first() {
                letters = rest;
                if FLAGS.contains(letter) {
                    self.flag(*letter);
                } else if VALUED.contains(letter) {
                    let value = if rest.is_empty() { words.next() } else { Some(rest) };
                    let value = value.ok_or(ArgsError::NoValue(char::from(*letter)))?;
                    self.value(*letter, text(value)?)?;
                    break;
                } else {
                    return Err(ArgsError::Unknown(char::from(*letter)));
                }
            }
        }
        Ok(())
    }

    fn flag(&mut self, letter: u8) {
        match letter {
            b'n' => self.no_input = true,
            b'T' => self.terminal = Terminal::Never,
            b't' if self.terminal == Terminal::Wanted => self.terminal = Terminal::Forced,
            b't' if self.terminal != Terminal::Forced => self.terminal = Terminal::Wanted,
            b'v' => self.verbose = true,
            b'V' => self.version = true,
            // Forwarding, compression, quiet: nothing that an agent has.
            _ => {}
        }
    }

    fn value(&mut self, letter: u8, value: &str) -> Result<(), ArgsError> {
        match letter {
            b'l' => self.set_user(value),
            b'p' => self.set_port("-p", value)?,
            b'i' => self.keys.push(value.to_owned()),
            b'o' => self.setting(value)?,
            _ => {}
        }
        Ok(())
    }

    /// `-o NAME=VALUE`, also written with a blank; names in any case.
    fn setting(&mut self, setting: &str) -> Result<(), ArgsError> {
        let (name, value) = setting.split_once(['=', ' ']).unwrap_or((setting, ""));
        let (name, value) = (name.trim().to_ascii_lowercase(), value.trim());
        match name.as_str() {
            "port" => self.set_port("-o Port", value)?,
            "user" => self.set_user(value),
            "identityfile" => self.keys.push(value.to_owned()),
            "connecttimeout" => {
                self.connect_timeout_s = Some(number("-o ConnectTimeout", value, "a number of seconds")?)
            }
            "requesttty" => match value {
                "no" => self.terminal = Terminal::Never,
                "yes" => self.terminal = Terminal::Wanted,
                "force" => self.terminal = Terminal::Forced,
                _ => {}
            },
            _ => {}
        }
        Ok(())
    }

    fn target(&mut self, target: &str) -> Result<(), ArgsError> {
        let rest = target.strip_prefix("ssh://").unwrap_or(target);
        let (user, mut host) = match rest.rsplit_once('@') {
            Some((user, host)) => (Some(user), host),
            None => (None, rest),
        };
        if rest.len() < target.len() {
            host = host.trim_end_matches('/');
            if let Some((name, port)) = host.rsplit_once(':').filter(|(name, _)| !name.ends_with(':')) {
                self.set_port("port of the host", port)?;
                host = name;
            }
        }
        let host = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host);
        if host.is_empty() {
            return Err(ArgsError::NoHost);
        }
        if let Some(user) = user {
            self.set_user(user);
        }
        self.host = host.to_owned();
        Ok(())
    }

    /// As with ssh, what is said first holds.
    fn set_user(&mut self, user: &str) {
        self.user.get_or_insert_with(|| user.to_owned());
    }

    fn set_port(&mut self, option: &str, value: &str) -> Result<(), ArgsError> {
        let port = number(option, value, "a port")?;
        self.port.get_or_insert(port);
        Ok(())
    }
}

fn number<N: std::str::FromStr>(option: &str, value: &str, wanted: &'static str) -> Result<N, ArgsError> {
    value.parse().map_err(|_| ArgsError::Value { option: option.to_owned(), value: value.to_owned(), wanted })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn daemons_of_open_mpi_stay_with_their_remote_shell() {
        let command = |words: &[&str]| String::from_utf8(parse(words).unwrap().command.unwrap()).unwrap();
        assert_eq!(command(&["h", " orted", "--daemonize", "-mca", "ess"]), " orted -mca ess");
        assert_eq!(
            command(&["h", "A=1;/v/bin/prted", "--prtemca", "x", "--daemonize"]),
            "A=1;/v/bin/prted --prtemca x"
        );
        assert_eq!(command(&["h", "orted", "--daemonizer"]), "orted --daemonizer");
        assert_eq!(command(&["h", "sorted", "--daemonize"]), "sorted --daemonize");
        assert_eq!(command(&["h", "mydaemon", "--daemonize"]), "mydaemon --daemonize", "others know what they do");
    }

    fn parsed(words: &[&str]) -> Request {
        parse(words).unwrap_or_else(|error| panic!("{words:?}: {error}"))
    }

    fn command(words: &[&str]) -> (String, String) {
        let request = parsed(words);
        (request.host, String::from_utf8(request.command.unwrap_or_default()).unwrap())
    }

    fn pair(host: &str, command: &str) -> (String, String) {
        (host.to_owned(), command.to_owned())
    }

    /// Recorded command lines, shortened where they only go on.
    #[test]
    fn what_launchers_write() {
        let orte = ["wc", " orted", "-mca", "ess", "\"env\"", "-mca", "orte_hnp_uri", "\"1.0;tcp://192.0.2.2:4\""];
        let wanted = " orted -mca ess \"env\" -mca orte_hnp_uri \"1.0;tcp://192.0.2.2:4\"";
        assert_eq!(command(&orte), pair("wc", wanted));
        let prefixed = ["wc", "          PATH=/usr/bin:$PATH ; export PATH ;   /usr/bin/orted", "-mca"];
        assert_eq!(
            command(&prefixed),
            pair("wc", "          PATH=/usr/bin:$PATH ; export PATH ;   /usr/bin/orted -mca")
        );
        let profile = ["wa", "(", "test", "!", "-r", "./.profile", "||", ".", "./.profile;", " orted", ")"];
        assert_eq!(command(&profile), pair("wa", "( test ! -r ./.profile || . ./.profile;  orted )"));
        let prte = ["wc", "PRTE_PREFIX=/v;export PRTE_PREFIX;/v/bin/prted", "--prtemca", "ess", "\"env\""];
        assert_eq!(command(&prte), pair("wc", "PRTE_PREFIX=/v;export PRTE_PREFIX;/v/bin/prted --prtemca ess \"env\""));
        let hydra = ["-x", "127.0.0.2", "\"/usr/bin/hydra_pmi_proxy\"", "--control-port", "host0:44403"];
        assert_eq!(command(&hydra), pair("127.0.0.2", "\"/usr/bin/hydra_pmi_proxy\" --control-port host0:44403"));
        let intel = ["-q", "-x", "127.0.0.2", "/bin//hydra_bstrap_proxy", "--upstream-host", "host0"];
        assert_eq!(command(&intel), pair("127.0.0.2", "/bin//hydra_bstrap_proxy --upstream-host host0"));
    }

    #[test]
    fn options_stand_before_and_behind_the_host() {
        let operators = ["-x", "-o", "ConnectionAttempts=10", "mpi@wa", "-p", "2222", "orted", "-p", "1"];
        let request = parsed(&operators);
        assert_eq!((request.host.as_str(), request.user.as_deref(), request.port), ("wa", Some("mpi"), Some(2222)));
        assert_eq!(request.command.as_deref(), Some(&b"orted -p 1"[..]));
        let glued = parsed(&["-qxp22", "-oUser=root", "-o", "ConnectTimeout 7", "-i/k/id_rsa", "wa"]);
        assert_eq!((glued.port, glued.user.as_deref(), glued.connect_timeout_s), (Some(22), Some("root"), Some(7)));
        assert_eq!((glued.keys, glued.command), (vec!["/k/id_rsa".to_owned()], None));
        assert_eq!(command(&["wa", "--", "-starts", "with a dash"]), pair("wa", "-starts with a dash"));
        assert_eq!(command(&["-l", "me", "wa", "echo $SHELL"]), pair("wa", "echo $SHELL"));
        let other = parsed(&["-l", "me", "you@wa"]);
        assert_eq!(other.user.as_deref(), Some("me"));
    }

    #[test]
    fn addresses_and_uris_are_hosts() {
        assert_eq!(parsed(&["fd00::2"]).host, "fd00::2");
        assert_eq!(parsed(&["me@[fd00::2]"]).host, "fd00::2");
        let uri = parsed(&["ssh://me@[fd00::2]:2200/"]);
        assert_eq!((uri.host.as_str(), uri.port, uri.user.as_deref()), ("fd00::2", Some(2200), Some("me")));
        assert_eq!(parsed(&["ssh://wa"]).port, None);
    }

    #[test]
    fn terminals_are_asked_for_in_four_ways() {
        let terminal = |words: &[&str]| parsed(words).terminal;
        assert_eq!(terminal(&["wa"]), Terminal::Auto);
        assert_eq!(terminal(&["-t", "wa", "top"]), Terminal::Wanted);
        assert_eq!(terminal(&["-tt", "wa"]), Terminal::Forced);
        assert_eq!(terminal(&["-t", "-t", "-t", "wa"]), Terminal::Forced);
        assert_eq!(terminal(&["-t", "-T", "wa"]), Terminal::Never);
        assert_eq!(terminal(&["-o", "RequestTTY=force", "wa"]), Terminal::Forced);
    }

    #[test]
    fn bytes_of_a_command_pass_as_they_are() {
        let words: [&[u8]; 3] = [b"wa", b"echo \xff", b""];
        assert_eq!(parse(&words).unwrap().command, Some(b"echo \xff ".to_vec()));
    }

    #[test]
    fn mistakes_are_told() {
        let told = |words: &[&str]| parse(words).unwrap_err().to_string();
        assert_eq!(told(&[]), "no host is named; usage: muster-rsh [OPTIONS] [USER@]HOST [COMMAND…]");
        assert_eq!(told(&["me@"]), "no host is named; usage: muster-rsh [OPTIONS] [USER@]HOST [COMMAND…]");
        assert_eq!(told(&["-Z", "wa"]), "unknown option -Z; options of ssh are accepted, most of them without effect");
        assert_eq!(told(&["wa", "-p"]), "option -p needs a value");
        assert_eq!(told(&["-p", "70000", "wa"]), "-p: \"70000\" is not a port");
        assert_eq!(
            told(&["-o", "ConnectTimeout=soon", "wa"]),
            "-o ConnectTimeout: \"soon\" is not a number of seconds"
        );
        assert!(parse(&["-V"]).unwrap().version);
    }
}
