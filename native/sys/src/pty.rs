//! Terminals made of two ends: programs run on one, the other is ours.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use crate::pipe::{check, own};

/// Size of a terminal in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    /// Lines.
    pub rows: u16,
    /// Characters in a line.
    pub columns: u16,
}

/// A terminal.
#[derive(Debug)]
pub struct Pty {
    /// Our end: what is written here is typed, what is read here was printed.
    pub master: OwnedFd,
    /// The program's end.
    pub slave: OwnedFd,
}

/// Makes a terminal of this size. Both ends close on exec.
pub fn open(size: Size) -> io::Result<Pty> {
    // SAFETY: takes flags only.
    let master = check(unsafe { libc::posix_openpt(libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC) })?;
    // SAFETY: made by the call above and known to nobody else.
    let master = unsafe { own(master) };
    // SAFETY: takes a descriptor that is open.
    check(unsafe { libc::unlockpt(master.as_raw_fd()) })?;
    // By descriptor, not by name: a container may have another /dev/pts, or none.
    // SAFETY: takes a descriptor that is open, and flags.
    let slave = check(unsafe {
        libc::ioctl(master.as_raw_fd(), libc::TIOCGPTPEER, libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC)
    })?;
    // SAFETY: made by the call above and known to nobody else.
    let slave = unsafe { own(slave) };
    let pty = Pty { master, slave };
    set_size(std::os::fd::AsFd::as_fd(&pty.master), size)?;
    Ok(pty)
}

/// Changes the size of a terminal; its foreground processes are told by `SIGWINCH`.
pub fn set_size(fd: BorrowedFd<'_>, size: Size) -> io::Result<()> {
    let raw = libc::winsize { ws_row: size.rows, ws_col: size.columns, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: the call reads `raw`, which outlives it.
    check(unsafe { libc::ioctl(fd.as_raw_fd(), libc::TIOCSWINSZ, &raw) }).map(drop)
}

/// The size of a terminal; an error when it is none.
pub fn size(fd: BorrowedFd<'_>) -> io::Result<Size> {
    let mut raw = libc::winsize { ws_row: 0, ws_col: 0, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: the call writes `raw`, which outlives it.
    check(unsafe { libc::ioctl(fd.as_raw_fd(), libc::TIOCGWINSZ, &mut raw) })?;
    Ok(Size { rows: raw.ws_row, columns: raw.ws_col })
}

/// A terminal that passes every key on, for as long as this lives.
#[derive(Debug)]
pub struct Raw {
    fd: OwnedFd,
    before: libc::termios,
}

impl Raw {
    /// Takes the terminal behind a descriptor out of its own line editing and signals.
    pub fn enter(fd: BorrowedFd<'_>) -> io::Result<Self> {
        let fd = fd.try_clone_to_owned()?;
        // SAFETY: all-zero is a valid termios; the call fills it.
        let mut before: libc::termios = unsafe { std::mem::zeroed() };
        // SAFETY: the call writes `before`, which outlives it.
        check(unsafe { libc::tcgetattr(fd.as_raw_fd(), &mut before) })?;
        let mut raw = before;
        // SAFETY: changes the structure that it is given and nothing else.
        unsafe { libc::cfmakeraw(&mut raw) };
        // SAFETY: the call reads `raw`, which outlives it.
        check(unsafe { libc::tcsetattr(fd.as_raw_fd(), libc::TCSADRAIN, &raw) })?;
        Ok(Self { fd, before })
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        // SAFETY: the call reads `before`, which outlives it. A terminal that is gone needs no mending.
        unsafe { libc::tcsetattr(self.fd.as_raw_fd(), libc::TCSADRAIN, &self.before) };
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::{Read, Write};
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn what_is_typed_at_one_end_is_read_at_the_other() {
        let pty = open(Size { rows: 24, columns: 80 }).unwrap();
        assert_eq!(size(pty.slave.as_fd()).unwrap(), Size { rows: 24, columns: 80 });
        set_size(pty.master.as_fd(), Size { rows: 50, columns: 132 }).unwrap();
        assert_eq!(size(pty.slave.as_fd()).unwrap(), Size { rows: 50, columns: 132 });
        let (mut keyboard, mut program) = (File::from(pty.master), File::from(pty.slave));
        keyboard.write_all(b"line\n").unwrap();
        let mut read = [0; 16];
        let n = program.read(&mut read).unwrap();
        assert_eq!(&read[..n], b"line\n");
    }

    #[test]
    fn a_raw_terminal_gives_every_key_and_is_restored() {
        let pty = open(Size { rows: 1, columns: 1 }).unwrap();
        let raw = Raw::enter(pty.slave.as_fd()).unwrap();
        let (mut keyboard, mut program) = (File::from(pty.master), File::from(pty.slave.try_clone().unwrap()));
        keyboard.write_all(b"\x03").unwrap();
        let mut read = [0; 4];
        assert_eq!((program.read(&mut read).unwrap(), read[0]), (1, 3));
        drop(raw);
        keyboard.write_all(b"a\x7fb\n").unwrap();
        let n = program.read(&mut read).unwrap();
        assert_eq!(&read[..n], b"b\n", "the line is edited again");
    }

    #[test]
    fn what_is_no_terminal_has_no_size() {
        let (one, _other) = crate::pipe::socketpair().unwrap();
        assert!(size(one.as_fd()).is_err());
        assert!(Raw::enter(one.as_fd()).is_err());
    }
}
