//! The text in what a rank's library wants people to read.
//!
//! Open MPI 5 hands text over. Open MPI 4 packs four things, each behind a count of one and, if it is text, its length: the name of
//! a file of messages, the name of a message in it, whether the text follows, and the text.

/// The text in a packed message; the bytes themselves if they are packed in another way.
pub fn unpacked(packed: &[u8]) -> Vec<u8> {
    match (Reader { rest: packed }).message() {
        Some(text) => text,
        None => packed.to_vec(),
    }
}

struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    fn message(&mut self) -> Option<Vec<u8>> {
        let file = self.text()?;
        let topic = self.text()?;
        let text = if self.flag()? {
            let mut text = self.text()?.to_vec();
            if !text.ends_with(b"\n") {
                text.push(b'\n');
            }
            text
        } else {
            [b"see the message \"", topic, b"\" of ", file, b"\n"].concat()
        };
        self.rest.is_empty().then_some(text)
    }

    /// Text without its terminator.
    fn text(&mut self) -> Option<&'a [u8]> {
        self.one()?;
        let length = self.number()? as usize;
        let bytes = self.take(length)?;
        bytes.strip_suffix(b"\0")
    }

    fn flag(&mut self) -> Option<bool> {
        self.one()?;
        self.take(1).map(|byte| byte != [0])
    }

    /// The count in front of everything.
    fn one(&mut self) -> Option<()> {
        (self.number()? == 1).then_some(())
    }

    fn number(&mut self) -> Option<u32> {
        let bytes = self.take(4)?;
        Some(u32::from_be_bytes(bytes.try_into().ok()?))
    }

    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(length)?;
        self.rest = rest;
        Some(taken)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packed(parts: &[&str], flag: u8, output: Option<&str>) -> Vec<u8> {
        let mut bytes = Vec::new();
        let text = |bytes: &mut Vec<u8>, text: &str| {
            bytes.extend(1u32.to_be_bytes());
            bytes.extend((text.len() as u32 + 1).to_be_bytes());
            bytes.extend(text.as_bytes());
            bytes.push(0);
        };
        for part in parts {
            text(&mut bytes, part);
        }
        bytes.extend(1u32.to_be_bytes());
        bytes.push(flag);
        if let Some(output) = output {
            text(&mut bytes, output);
        }
        bytes
    }

    #[test]
    fn the_text_is_found() {
        let message = packed(&["help-mpi-api.txt", "mpi-abort"], 1, Some("MPI_ABORT was invoked\non rank 0"));
        assert_eq!(unpacked(&message), b"MPI_ABORT was invoked\non rank 0\n");
    }

    #[test]
    fn a_message_without_text_is_named() {
        let message = packed(&["help.txt", "topic"], 0, None);
        assert_eq!(unpacked(&message), b"see the message \"topic\" of help.txt\n");
    }

    #[test]
    fn anything_else_is_passed_on_as_it_is() {
        let message = packed(&["help.txt", "topic"], 1, Some("text"));
        for length in 0..message.len() {
            assert_eq!(unpacked(&message[..length]), &message[..length], "{length}");
        }
        assert_eq!(unpacked(b"plain words\n"), b"plain words\n");
        assert_eq!(unpacked(&[0, 0, 0, 1, 0xff, 0xff, 0xff, 0xff, 1]), [0, 0, 0, 1, 0xff, 0xff, 0xff, 0xff, 1]);
    }
}
