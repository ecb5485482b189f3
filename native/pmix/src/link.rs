//! The socket to the agent.

use std::io::{Read, Write};

use muster_protocol::pmix::{self, BadMessage, FromPmix, LENGTH_BYTES, ToPmix};

use crate::abi::status;
use crate::answers;
use crate::host::{Host, Out};
use crate::outbox::Inbox;

/// Why the agent's next message cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum BadLink {
    /// The socket has failed.
    #[error("cannot read from the agent: {0}")]
    Read(#[from] std::io::Error),
    /// What came is no message.
    #[error(transparent)]
    Message(#[from] BadMessage),
}

/// The next message; none when the agent has closed its end.
///
/// # Errors
/// When the socket fails or what comes is no message.
pub fn next(socket: &mut impl Read) -> Result<Option<ToPmix>, BadLink> {
    let mut head = [0; LENGTH_BYTES];
    let mut have = 0;
    while have < LENGTH_BYTES {
        match socket.read(&mut head[have..]) {
            Ok(0) if have == 0 => return Ok(None),
            Ok(0) => return Err(std::io::Error::from(std::io::ErrorKind::UnexpectedEof).into()),
            Ok(more) => have += more,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            // An agent that was killed with messages unread resets the connection: that is an end, too.
            Err(error) if have == 0 && error.kind() == std::io::ErrorKind::ConnectionReset => return Ok(None),
            Err(error) => return Err(error.into()),
        }
    }
    let length = pmix::length(head)?;
    let mut body = Vec::new();
    // Grows with what comes, not with what is announced.
    if socket.take(length as u64).read_to_end(&mut body)? < length {
        return Err(std::io::Error::from(std::io::ErrorKind::UnexpectedEof).into());
    }
    Ok(Some(pmix::unpacked(&body)?))
}

/// Writes what is put into the outbox until that ends or nobody reads.
pub fn write_all(socket: &mut impl Write, inbox: &Inbox<Out>, host: &Host) {
    while let Some(out) = inbox.next() {
        let message = match out {
            Out::Say(message) => message,
            Out::Refuse(waiting) => {
                answers::refuse(waiting, status::OUT_OF_RESOURCE);
                continue;
            }
            Out::End => return,
        };
        match pmix::packed(&message) {
            Ok(bytes) => {
                if socket.write_all(&bytes).is_err() {
                    // The agent is gone: the reader sees it, too, and ends the process.
                    return;
                }
            }
            Err(error) => {
                let Some(waiting) = token_of(&message).and_then(|token| host.take(token)) else {
                    crate::process::die(&format!("cannot tell the agent: {error}"));
                };
                answers::refuse(waiting, status::OUT_OF_RESOURCE);
            }
        }
    }
}

/// The operation that a message is about.
fn token_of(message: &FromPmix) -> Option<u64> {
    match message {
        FromPmix::Fence { token, .. }
        | FromPmix::Modex { token, .. }
        | FromPmix::Publish { token, .. }
        | FromPmix::Lookup { token, .. }
        | FromPmix::Unpublish { token, .. }
        | FromPmix::Spawn { token, .. }
        | FromPmix::Connect { token, .. }
        | FromPmix::Disconnect { token, .. }
        | FromPmix::Group { token, .. }
        | FromPmix::Log { token, .. } => Some(*token),
        // The number in it is the agent's.
        FromPmix::Fetched { .. } => None,
        FromPmix::Ready { .. }
        | FromPmix::Failed { .. }
        | FromPmix::Registered { .. }
        | FromPmix::Connected { .. }
        | FromPmix::Finalised { .. }
        | FromPmix::Drained { .. }
        | FromPmix::Abort { .. } => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_come_one_after_the_other_and_then_the_end() {
        let first = ToPmix::Deregister { namespace: "job.0".into() };
        let second = ToPmix::Done { token: 3, status: 0 };
        let mut bytes = pmix::packed(&first).unwrap();
        bytes.extend(pmix::packed(&second).unwrap());
        let mut reader = bytes.as_slice();
        assert_eq!(next(&mut reader).unwrap(), Some(first));
        assert_eq!(next(&mut reader).unwrap(), Some(second));
        assert_eq!(next(&mut reader).unwrap(), None);
    }

    #[test]
    fn an_end_inside_a_message_is_an_error() {
        let bytes = pmix::packed(&ToPmix::Done { token: 3, status: 0 }).unwrap();
        for length in 1..bytes.len() {
            assert!(matches!(next(&mut &bytes[..length]), Err(BadLink::Read(_))), "{length}");
        }
        let error = next(&mut [0xff; 4].as_slice()).unwrap_err();
        assert!(error.to_string().starts_with("a PMIx message of 4294967295 bytes"), "{error}");
    }
}
