//! The desk of a launcher: where remote shells on its machine hand over what they were asked for.
//!
//! The launcher holds a connection to every host, so a remote shell that finds a desk dials nobody: it sends its descriptors
//! and its command, waits for the end, and is in nobody's way meanwhile. Its own end closes the socket and so ends the command.
//!
//! ```text
//!   mpirun ── muster-rsh ── Unix socket: what to run, descriptors ──▶ launcher ── its connection ──▶ agent
//! ```

use std::io::{self, Read, Write};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;

use minicbor::bytes::ByteVec;
use minicbor::{Decode, Encode};
use muster_protocol::limits::DESK_MESSAGE_BYTES_MAX;
use muster_sys::fdpass;

/// Names the socket in the environment of commands that the launcher has started.
pub const DESK: &str = "MUSTER_DESK";

const LENGTH_BYTES: usize = 4;

/// What a remote shell was asked for.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Ask {
    /// Where to run it.
    #[n(0)]
    pub host: String,
    /// The agent's port, if that was said.
    #[n(1)]
    pub port: Option<u16>,
    /// As whom, if that was said.
    #[n(2)]
    pub user: Option<String>,
    /// The command line for the host's shell.
    #[n(3)]
    pub command: Option<ByteVec>,
    /// Whether standard input is for it. The descriptors are this one, if so, then standard output and standard error.
    #[n(4)]
    pub input: bool,
}

/// How it ended.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Told {
    /// Exit status for the remote shell.
    #[n(0)]
    pub code: u8,
    /// What to say on standard error, if anything.
    #[n(1)]
    pub message: Option<String>,
    /// The host is the machine that the remote shell runs on: let it run the command itself.
    #[n(2)]
    pub here: bool,
}

fn packed(message: impl Encode<()>) -> Vec<u8> {
    let body = minicbor::to_vec(message).expect("encoding into memory does not fail");
    let mut bytes = (body.len() as u32).to_be_bytes().to_vec();
    bytes.extend(body);
    bytes
}

/// The length of a message by its first bytes.
fn length(bytes: [u8; LENGTH_BYTES]) -> io::Result<usize> {
    let length = u32::from_be_bytes(bytes) as usize;
    if length > DESK_MESSAGE_BYTES_MAX {
        return Err(io::Error::other(format!(
            "a message of {length} bytes; at most {DESK_MESSAGE_BYTES_MAX} are taken"
        )));
    }
    Ok(length)
}

fn unpacked<T: for<'b> Decode<'b, ()>>(body: &[u8]) -> io::Result<T> {
    minicbor::decode(body).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error.to_string()))
}

/// Hands a command over and waits for its end.
pub fn hand_over(desk: &Path, ask: &Ask, descriptors: &[BorrowedFd<'_>]) -> io::Result<Told> {
    let mut socket = UnixStream::connect(desk)?;
    let bytes = packed(ask);
    let sent = fdpass::send(&socket, &bytes, descriptors).map_err(io::Error::other)?;
    socket.write_all(&bytes[sent..])?;
    let mut head = [0; LENGTH_BYTES];
    socket.read_exact(&mut head)?;
    let mut body = vec![0; length(head)?];
    socket.read_exact(&mut body)?;
    unpacked(&body)
}

/// Takes what a remote shell hands over.
pub fn take(socket: &mut UnixStream) -> io::Result<(Ask, Vec<OwnedFd>)> {
    let mut first = vec![0; 64 << 10];
    let (read, descriptors) = fdpass::receive(socket, &mut first).map_err(io::Error::other)?;
    first.truncate(read);
    let Some((head, rest)) = first.split_first_chunk::<LENGTH_BYTES>() else {
        return Err(io::ErrorKind::UnexpectedEof.into());
    };
    let mut body = rest.to_vec();
    let wanted = length(*head)?;
    let here = body.len().min(wanted);
    body.resize(wanted, 0);
    socket.read_exact(&mut body[here..])?;
    let ask: Ask = unpacked(&body)?;
    let due = 2 + usize::from(ask.input);
    if descriptors.len() != due {
        return Err(io::Error::other(format!("{} descriptors came with a command, {due} were due", descriptors.len())));
    }
    Ok((ask, descriptors))
}

/// The answer as it is written.
pub fn answer(told: &Told) -> Vec<u8> {
    packed(told)
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixListener;

    use super::*;

    fn ask(command: Vec<u8>, input: bool) -> Ask {
        Ask { host: "w-0".into(), port: Some(7), user: None, command: Some(command.into()), input }
    }

    #[test]
    fn commands_and_descriptors_cross_whatever_their_size() {
        let dir = tempfile::tempdir().unwrap();
        let desk = dir.path().join("desk");
        let listener = UnixListener::bind(&desk).unwrap();
        for bytes in [0, 10, 100_000, DESK_MESSAGE_BYTES_MAX - 100] {
            let wanted = ask(vec![b'x'; bytes], bytes == 10);
            let client = std::thread::spawn({
                let (desk, wanted) = (desk.clone(), wanted.clone());
                move || {
                    let null = File::open("/dev/null").unwrap();
                    let fds = vec![null.as_fd(); 2 + usize::from(wanted.input)];
                    hand_over(&desk, &wanted, &fds)
                }
            });
            let (mut socket, _) = listener.accept().unwrap();
            let (got, descriptors) = take(&mut socket).unwrap();
            assert_eq!((got, descriptors.len()), (wanted.clone(), 2 + usize::from(wanted.input)));
            let told = Told { code: 9, message: Some("no".into()), here: false };
            socket.write_all(&answer(&told)).unwrap();
            assert_eq!(client.join().unwrap().unwrap(), told);
        }
    }

    #[test]
    fn what_is_no_command_is_refused() {
        let refused = |bytes: &[u8], fds: usize| {
            let (ours, mut theirs) = UnixStream::pair().unwrap();
            let null = File::open("/dev/null").unwrap();
            fdpass::send(&ours, bytes, &vec![null.as_fd(); fds]).unwrap();
            drop(ours);
            take(&mut theirs).unwrap_err().to_string()
        };
        assert_eq!(refused(&[0; 3], 0), "unexpected end of file");
        assert_eq!(refused(&u32::MAX.to_be_bytes(), 0), "a message of 4294967295 bytes; at most 4194304 are taken");
        assert_eq!(refused(&packed(ask(Vec::new(), true)), 2), "2 descriptors came with a command, 3 were due");
        assert!(refused(&[0, 0, 0, 4, 1, 2, 3, 4], 0).contains("type"));
        let cut = packed(ask(vec![0; 50], false));
        assert_eq!(refused(&cut[..20], 2), "failed to fill whole buffer");
    }
}
