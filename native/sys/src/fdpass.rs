//! Descriptors over a Unix socket, with a small payload.

use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use crate::pipe::{check, own};

/// Descriptors that one message can carry.
pub const DESCRIPTORS_PER_MESSAGE_MAX: usize = 8;

const CONTROL_BYTES: usize = {
    // SAFETY: CMSG_SPACE only computes; it is unsafe for its signature's sake.
    let bytes = unsafe { libc::CMSG_SPACE((DESCRIPTORS_PER_MESSAGE_MAX * size_of::<libc::c_int>()) as u32) };
    bytes as usize
};

/// Room for control messages, aligned as their header wants it.
#[repr(C)]
union Control {
    bytes: [u8; CONTROL_BYTES],
    _align: libc::cmsghdr,
}

/// Why descriptors did not pass.
#[derive(Debug, thiserror::Error)]
pub enum PassError {
    /// The socket failed.
    #[error("passing descriptors over a unix socket failed: {0}")]
    Io(#[from] io::Error),
    /// Too many at once.
    #[error("{given} descriptors in one message, at most {DESCRIPTORS_PER_MESSAGE_MAX} are possible")]
    TooMany {
        /// How many were given.
        given: usize,
    },
    /// Nothing to carry them.
    #[error("descriptors need a payload of at least one byte to travel with")]
    EmptyPayload,
    /// The other side sent more than there is room for, or we have no free descriptors; what came was closed.
    #[error("descriptors were lost on the way: too many in one message, or none free in this process")]
    Truncated,
}

/// Sends bytes, and descriptors with the first of them. Returns how many bytes went; the descriptors went if that is
/// more than 0, the rest is to be sent as plain bytes.
pub fn send(socket: &UnixStream, payload: &[u8], fds: &[BorrowedFd<'_>]) -> Result<usize, PassError> {
    if payload.is_empty() {
        return Err(PassError::EmptyPayload);
    }
    if fds.len() > DESCRIPTORS_PER_MESSAGE_MAX {
        return Err(PassError::TooMany { given: fds.len() });
    }
    let mut control = Control { bytes: [0; CONTROL_BYTES] };
    let io = [IoSlice::new(payload)];
    // SAFETY: all-zero is a valid msghdr without address, data and control.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    // IoSlice has the layout of iovec by its contract; sendmsg only reads it.
    message.msg_iov = io.as_ptr().cast_mut().cast();
    message.msg_iovlen = 1;
    if !fds.is_empty() {
        let bytes = size_of_val(fds) as u32;
        message.msg_control = (&raw mut control).cast();
        // SAFETY: CMSG_SPACE and CMSG_LEN only compute. CMSG_FIRSTHDR points into `control`, which has room for the
        // header and DESCRIPTORS_PER_MESSAGE_MAX descriptors and is aligned for the header; BorrowedFd is a bare int.
        unsafe {
            message.msg_controllen = libc::CMSG_SPACE(bytes) as _;
            let header = libc::CMSG_FIRSTHDR(&message);
            (*header).cmsg_level = libc::SOL_SOCKET;
            (*header).cmsg_type = libc::SCM_RIGHTS;
            (*header).cmsg_len = libc::CMSG_LEN(bytes) as _;
            std::ptr::copy_nonoverlapping(fds.as_ptr().cast::<u8>(), libc::CMSG_DATA(header), size_of_val(fds));
        }
    }
    loop {
        // SAFETY: `message` points to `io` and `control`, which outlive the call.
        let n = unsafe { libc::sendmsg(socket.as_raw_fd(), &message, libc::MSG_NOSIGNAL) };
        match usize::try_from(n) {
            Ok(n) => return Ok(n),
            Err(_) => match io::Error::last_os_error() {
                e if e.kind() == io::ErrorKind::Interrupted => {}
                e => return Err(e.into()),
            },
        }
    }
}

/// Receives bytes and the descriptors that came with them, which close on exec. 0 bytes: the other side has closed.
pub fn receive(socket: &UnixStream, buffer: &mut [u8]) -> Result<(usize, Vec<OwnedFd>), PassError> {
    let mut control = Control { bytes: [0; CONTROL_BYTES] };
    let mut io = [IoSliceMut::new(buffer)];
    // SAFETY: all-zero is a valid msghdr without address, data and control.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = io.as_mut_ptr().cast();
    message.msg_iovlen = 1;
    message.msg_control = (&raw mut control).cast();
    message.msg_controllen = CONTROL_BYTES as _;
    let n = loop {
        // SAFETY: `message` points to `io` and `control`, which outlive the call and are written within their lengths.
        match check_size(unsafe { libc::recvmsg(socket.as_raw_fd(), &mut message, libc::MSG_CMSG_CLOEXEC) }) {
            Ok(n) => break n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e.into()),
        }
    };
    let fds = received(&message);
    if message.msg_flags & libc::MSG_CTRUNC != 0 {
        // What came is dropped, so closed.
        return Err(PassError::Truncated);
    }
    Ok((n, fds))
}

fn check_size(n: isize) -> io::Result<usize> {
    usize::try_from(n).map_err(|_| io::Error::last_os_error())
}

/// Takes over every descriptor in a received message's control part.
fn received(message: &libc::msghdr) -> Vec<OwnedFd> {
    let mut fds = Vec::new();
    // SAFETY: the kernel filled the control part up to msg_controllen; CMSG_FIRSTHDR and CMSG_NXTHDR stay inside it, and
    // the data of an SCM_RIGHTS header is an array of fresh descriptors that nobody else knows. It need not be aligned.
    unsafe {
        let mut header = libc::CMSG_FIRSTHDR(message);
        while !header.is_null() {
            if (*header).cmsg_level == libc::SOL_SOCKET && (*header).cmsg_type == libc::SCM_RIGHTS {
                let bytes = ((*header).cmsg_len as usize).saturating_sub(libc::CMSG_LEN(0) as usize);
                let data = libc::CMSG_DATA(header).cast::<libc::c_int>();
                for i in 0..bytes / size_of::<libc::c_int>() {
                    let fd = data.add(i).read_unaligned();
                    if check(fd).is_ok() {
                        fds.push(own(fd));
                    }
                }
            }
            header = libc::CMSG_NXTHDR(message, header);
        }
    }
    fds
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::{Read, Write};
    use std::os::fd::AsFd;

    use super::*;
    use crate::pipe::pipe;

    #[test]
    fn descriptors_arrive_with_their_payload() {
        let (a, b) = UnixStream::pair().unwrap();
        let pipe = pipe().unwrap();
        assert_eq!(send(&a, b"take", &[pipe.read.as_fd(), pipe.write.as_fd()]).unwrap(), 4);
        drop(pipe);
        let mut buffer = [0; 16];
        let (n, fds) = receive(&b, &mut buffer).unwrap();
        assert_eq!((&buffer[..n], fds.len()), (&b"take"[..], 2));
        let mut fds = fds.into_iter().map(File::from);
        let (mut reader, mut writer) = (fds.next().unwrap(), fds.next().unwrap());
        writer.write_all(b"through").unwrap();
        drop(writer);
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        assert_eq!(text, "through");
    }

    #[test]
    fn plain_bytes_and_the_end_are_told_apart() {
        let (a, b) = UnixStream::pair().unwrap();
        send(&a, b"x", &[]).unwrap();
        drop(a);
        let mut buffer = [0; 4];
        assert!(matches!(receive(&b, &mut buffer), Ok((1, fds)) if fds.is_empty()));
        assert!(matches!(receive(&b, &mut buffer), Ok((0, fds)) if fds.is_empty()));
    }

    #[test]
    fn what_cannot_be_sent_is_refused() {
        let (a, _b) = UnixStream::pair().unwrap();
        let many = [a.as_fd(); DESCRIPTORS_PER_MESSAGE_MAX + 1];
        assert!(matches!(send(&a, b"x", &many), Err(PassError::TooMany { given: 9 })));
        assert!(matches!(send(&a, b"", &[a.as_fd()]), Err(PassError::EmptyPayload)));
    }
}
