//! The machine's network interfaces, as far as this process's network namespace has them.

use std::io;
use std::net::Ipv4Addr;
use std::os::unix::fs::MetadataExt;
use std::ptr;

use crate::pipe::check;

/// The IPv4 addresses of interfaces that are up, with the lengths of their networks' prefixes. Those of loopback interfaces are left
/// out.
pub fn ipv4() -> io::Result<Vec<(Ipv4Addr, u8)>> {
    let list = List::read()?;
    let mut found = Vec::new();
    let mut next = list.0.cast_const();
    // SAFETY: the entries of the list are linked, valid and unchanged until it is freed; the last one's link is null.
    while let Some(entry) = unsafe { next.as_ref() } {
        next = entry.ifa_next.cast_const();
        let (up, loopback) = (libc::IFF_UP as u32, libc::IFF_LOOPBACK as u32);
        if entry.ifa_flags & (up | loopback) == up
            && let (Some(address), Some(mask)) = (number(entry.ifa_addr), number(entry.ifa_netmask))
            && mask.leading_ones() + mask.trailing_zeros() >= u32::BITS
        {
            found.push((Ipv4Addr::from(address), mask.leading_ones() as u8));
        }
    }
    Ok(found)
}

/// A number that is another one for another network namespace of the same machine; none when `/proc` is missing.
pub fn namespace() -> Option<u64> {
    std::fs::metadata("/proc/self/ns/net").ok().map(|namespace| namespace.ino())
}

/// What `getifaddrs` has made, which goes with this.
struct List(*mut libc::ifaddrs);

impl List {
    fn read() -> io::Result<Self> {
        let mut list = ptr::null_mut();
        // SAFETY: getifaddrs writes a pointer to a list of its own to `list`, which outlives the call.
        check(unsafe { libc::getifaddrs(&mut list) })?;
        Ok(Self(list))
    }
}

impl Drop for List {
    fn drop(&mut self) {
        // SAFETY: the list is one of getifaddrs and is freed once; nobody has kept a reference into it.
        unsafe { libc::freeifaddrs(self.0) };
    }
}

/// An entry's address, where it is one of IPv4.
fn number(address: *const libc::sockaddr) -> Option<u32> {
    // SAFETY: getifaddrs gives null or the address of a whole socket address that lives as long as the list.
    let family = i32::from(unsafe { address.as_ref() }?.sa_family);
    if family != libc::AF_INET {
        return None;
    }
    // SAFETY: by its family it is this one, of which the C library has allocated the whole, aligned for any kind of address.
    let address = unsafe { address.cast::<libc::sockaddr_in>().as_ref() }?;
    Some(u32::from_be(address.sin_addr.s_addr))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_kernels_table_has_is_found_and_loopback_is_not() {
        let found = ipv4().unwrap();
        assert!(found.iter().all(|(address, prefix)| !address.is_loopback() && *prefix <= 32), "{found:?}");
        // Whatever this machine has, the kernel lists each as an address of its own.
        let table = std::fs::read_to_string("/proc/net/fib_trie").unwrap();
        let own: Vec<&str> = table.split("|-- ").filter(|entry| entry.contains("/32 host LOCAL")).collect();
        for (address, _) in &found {
            assert!(own.iter().any(|entry| entry.starts_with(&format!("{address}\n"))), "{address}: {table}");
        }
        assert!(namespace().is_some() && namespace() == namespace());
    }
}
