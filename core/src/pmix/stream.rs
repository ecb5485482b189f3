//! From the bytes of a socket to messages.

use bytes::{Buf, BytesMut};
use minicbor::Decode;
use muster_protocol::pmix::{BadMessage, LENGTH_BYTES, length, unpacked};

/// Bytes that have come and are no whole message yet.
#[derive(Debug, Default)]
pub struct Stream {
    bytes: BytesMut,
}

impl Stream {
    /// More has come.
    pub fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// The next message that is whole. After an error nothing more can be understood.
    pub fn next_message<T: for<'b> Decode<'b, ()>>(&mut self) -> Result<Option<T>, BadMessage> {
        let Some(head) = self.bytes.first_chunk::<LENGTH_BYTES>() else { return Ok(None) };
        let length = length(*head)?;
        let whole = LENGTH_BYTES + length;
        if self.bytes.len() < whole {
            self.bytes.reserve(whole - self.bytes.len());
            return Ok(None);
        }
        let message = unpacked(&self.bytes[LENGTH_BYTES..whole]);
        self.bytes.advance(whole);
        message.map(Some)
    }
}

#[cfg(test)]
mod tests {
    use muster_protocol::pmix::{FromPmix, packed};
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn messages_come_out_whole_however_their_bytes_arrive(
            texts in proptest::collection::vec(".{0,40}", 1..5), step in 1usize..50) {
            let sent: Vec<FromPmix> = texts.into_iter().map(|why| FromPmix::Failed { why }).collect();
            let bytes: Vec<u8> = sent.iter().flat_map(|m| packed(m).unwrap()).collect();
            let (mut stream, mut heard) = (Stream::default(), Vec::new());
            for piece in bytes.chunks(step) {
                stream.push(piece);
                while let Some(message) = stream.next_message::<FromPmix>().unwrap() { heard.push(message); }
            }
            prop_assert_eq!(heard, sent);
        }

        #[test]
        fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut stream = Stream::default();
            stream.push(&bytes);
            while let Ok(Some(_)) = stream.next_message::<FromPmix>() {}
        }
    }
}
