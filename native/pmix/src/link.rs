//! The socket to the agent.

use std::io::{Read, Write};
use std::sync::mpsc::Receiver;

use muster_protocol::pmix::{self, BadMessage, FromPmix, LENGTH_BYTES, ToPmix};

use crate::abi::status;
use crate::answers;
use crate::host::{Host, Out};

/// The next message; none when the agent has closed its end or is gone. An agent that is killed leaves whatever it had written by then:
/// half a message, or a connection that is reset because it had not read everything.
///
/// # Errors
/// When what comes is no message.
pub fn next(socket: &mut impl Read) -> Result<Option<ToPmix>, BadMessage> {
    let mut head = [0; LENGTH_BYTES];
    if socket.read_exact(&mut head).is_err() {
        return Ok(None);
    }
    let length = pmix::length(head)?;
    let mut body = Vec::new();
    // Grows with what comes, not with what is announced.
    match socket.take(length as u64).read_to_end(&mut body) {
        Ok(read) if read == length => pmix::unpacked(&body).map(Some),
        _ => Ok(None),
    }
}

/// Writes what is put into the outbox until that ends or nobody reads.
pub fn write_all(socket: &mut impl Write, inbox: &Receiver<Out>, host: &Host) {
    while let Ok(out) = inbox.recv() {
        host.taken();
        let message = match out {
            Out::Say(message) => message,
            Out::Refuse(waiting) => {
                host.answer_library(|| answers::refuse(waiting, status::OUT_OF_RESOURCE));
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
                host.answer_library(|| answers::refuse(waiting, status::OUT_OF_RESOURCE));
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
        | FromPmix::NotRegistered { .. }
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
    fn an_end_inside_a_message_is_the_end_of_the_agent() {
        let bytes = pmix::packed(&ToPmix::Done { token: 3, status: 0 }).unwrap();
        for length in 1..bytes.len() {
            assert_eq!(next(&mut &bytes[..length]).unwrap(), None, "{length}");
        }
        let error = next(&mut [0xff; 4].as_slice()).unwrap_err();
        assert!(error.to_string().starts_with("a PMIx message of 4294967295 bytes"), "{error}");
    }
}
