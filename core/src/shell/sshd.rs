//! The command line and the configuration of an ssh server, for an agent that is installed under its name.
//!
//! Operators start workers as `sshd -De` or `sshd -De -f FILE`; of what such a file says only the port, the process id's file and
//! the host key mean something to an agent. Source of letters and keywords: sshd(8) and sshd_config(5) of OpenSSH 9.

use thiserror::Error;

/// Letters that stand alone.
const FLAGS: &[u8] = b"46DdeiqtTV";
/// Letters that take a value, in the same word or the next one.
const VALUED: &[u8] = b"bCcEfGghkopu";

/// What an ssh server was asked for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ServerRequest {
    /// Port (`-p`, `-o Port=`).
    pub port: Option<u16>,
    /// Configuration file (`-f`).
    pub config: Option<String>,
    /// Files with a host key (`-h`, `-o HostKey=`).
    pub host_keys: Vec<String>,
    /// Where to write the process id (`-o PidFile=`).
    pub pid_file: Option<String>,
    /// Do not stay in the background (`-D`).
    pub foreground: bool,
    /// Only check (`-t`, `-T`).
    pub test: bool,
    /// What has no meaning here, as it was written.
    pub ignored: Vec<String>,
}

/// Why a command line cannot be obeyed.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ServerArgsError {
    /// A letter that sshd does not know.
    #[error(
        "unknown option -{0}; installed as sshd, the agent takes sshd's options: -D -e -f FILE -p PORT -o KEY=VALUE"
    )]
    Unknown(char),
    /// An option at the end of the line.
    #[error("option -{0} needs a value")]
    NoValue(char),
    /// A word that is no option.
    #[error("{0:?} is not an option")]
    Word(String),
    /// A port that is none.
    #[error("{place}: {value:?} is not a port")]
    Port {
        /// Where it was said.
        place: String,
        /// What was said.
        value: String,
    },
}

impl ServerRequest {
    /// Reads the words after the program's own name.
    pub fn parse<W: AsRef<str>>(words: &[W]) -> Result<Self, ServerArgsError> {
        let mut request = Self::default();
        let mut words = words.iter().map(AsRef::as_ref);
        while let Some(word) = words.next() {
            let Some(mut letters) = word.strip_prefix('-').filter(|letters| !letters.is_empty()) else {
                return Err(ServerArgsError::Word(word.to_owned()));
            };
            while let Some(letter) = letters.chars().next() {
                letters = &letters[letter.len_utf8()..];
                let byte = u8::try_from(letter).unwrap_or_default();
                if FLAGS.contains(&byte) {
                    request.foreground |= letter == 'D';
                    request.test |= matches!(letter, 't' | 'T');
                } else if VALUED.contains(&byte) {
                    let value = if letters.is_empty() { words.next() } else { Some(letters) };
                    request.value(letter, value.ok_or(ServerArgsError::NoValue(letter))?)?;
                    break;
                } else {
                    return Err(ServerArgsError::Unknown(letter));
                }
            }
        }
        Ok(request)
    }

    fn value(&mut self, letter: char, value: &str) -> Result<(), ServerArgsError> {
        match letter {
            'p' => self.port = Some(port("-p", value)?),
            'f' => self.config = Some(value.to_owned()),
            'h' => self.host_keys.push(value.to_owned()),
            'o' => {
                let (key, value) = split(value);
                self.keyword(&format!("-o {key}"), key, value)?;
            }
            _ => self.ignored.push(format!("-{letter} {value}")),
        }
        Ok(())
    }

    fn keyword(&mut self, place: &str, key: &str, value: &str) -> Result<(), ServerArgsError> {
        match key.to_ascii_lowercase().as_str() {
            // The first one counts, as with sshd, but for keys, of which there may be several.
            "port" => self.port = Some(self.port.map_or_else(|| port(place, value), Ok)?),
            "hostkey" => self.host_keys.push(value.to_owned()),
            "pidfile" => {
                self.pid_file.get_or_insert_with(|| value.to_owned());
            }
            _ => self.ignored.push(key.to_owned()),
        }
        Ok(())
    }

    /// Adds what a configuration file says; the command line goes before it.
    pub fn read_config(&mut self, file: &str, text: &str) -> Result<(), ServerArgsError> {
        for (number, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let (key, value) = split(line);
            // What follows holds for some clients only.
            if key.eq_ignore_ascii_case("match") {
                self.ignored.push(key.to_owned());
                break;
            }
            self.keyword(&format!("{file}:{}", number + 1), key, value)?;
        }
        Ok(())
    }
}

fn split(setting: &str) -> (&str, &str) {
    let end = setting.find(|c: char| c.is_whitespace() || c == '=').unwrap_or(setting.len());
    let (key, value) = setting.split_at(end);
    (key, value.trim_start_matches(|c: char| c.is_whitespace() || c == '=').trim().trim_matches('"'))
}

fn port(place: &str, value: &str) -> Result<u16, ServerArgsError> {
    let wrong = || ServerArgsError::Port { place: place.to_owned(), value: value.to_owned() };
    value.parse().ok().filter(|port| *port != 0).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<ServerRequest, String> {
        let words: Vec<&str> = line.split_whitespace().collect();
        ServerRequest::parse(&words).map_err(|e| e.to_string())
    }

    #[test]
    fn command_lines_of_operators_and_images() {
        let plain = parse("-De").unwrap();
        assert_eq!((plain.foreground, plain.port, plain.config), (true, None, None));
        let file = parse("-De -f /home/mpiuser/.sshd_config").unwrap();
        assert_eq!(file.config.as_deref(), Some("/home/mpiuser/.sshd_config"));
        let options = parse("-D -p2022 -o StrictModes=no -o HostKey=/k/id_rsa -u0 -o PidFile=/tmp/pid").unwrap();
        assert_eq!((options.port, options.host_keys), (Some(2022), vec!["/k/id_rsa".to_owned()]));
        assert_eq!((options.ignored.join(","), options.pid_file), ("StrictModes,-u 0".into(), Some("/tmp/pid".into())));
        assert!(parse("-t").unwrap().test && !parse("-e").unwrap().foreground);
    }

    #[test]
    fn a_configuration_of_mpi_images() {
        let mut request = parse("-De -o Port=7").unwrap();
        let text = "PidFile /home/mpiuser/sshd.pid\nHostKey /home/mpiuser/.ssh/id_rsa\n# a word\nStrictModes no\nPort 2222\n\
                    Match User x\nPort 1\n";
        request.read_config("f", text).unwrap();
        assert_eq!(request.port, Some(7), "the command line goes first");
        assert_eq!(request.host_keys, ["/home/mpiuser/.ssh/id_rsa"]);
        assert_eq!(request.pid_file.as_deref(), Some("/home/mpiuser/sshd.pid"));
        assert_eq!(request.ignored, ["StrictModes", "Match"]);
        let mut of_file = ServerRequest::default();
        of_file.read_config("f", text).unwrap();
        assert_eq!(of_file.port, Some(2222));
    }

    #[test]
    fn what_is_wrong_is_said() {
        insta::assert_snapshot!(parse("-x").unwrap_err(), @"unknown option -x; installed as sshd, the agent takes sshd's options: -D -e -f FILE -p PORT -o KEY=VALUE");
        insta::assert_snapshot!(parse("-De -f").unwrap_err(), @"option -f needs a value");
        insta::assert_snapshot!(parse("start").unwrap_err(), @r#""start" is not an option"#);
        insta::assert_snapshot!(parse("-p 0").unwrap_err(), @r#"-p: "0" is not a port"#);
        let wrong = ServerRequest::default().read_config("/c", "\nPort many\n").unwrap_err().to_string();
        insta::assert_snapshot!(wrong, @r#"/c:2: "many" is not a port"#);
        assert!(parse("-é").is_err());
    }
}
