//! Where an agent is told to listen: an address, with or without a port. The launcher's option of the same name demands a port,
//! and both may stand in one environment.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::str::FromStr;

/// One place to listen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Listen {
    /// The address.
    pub ip: IpAddr,
    /// The port, where it is not the one that holds for all.
    pub port: Option<u16>,
}

/// What is not a place to listen.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not an address to listen at; write IP, IP:PORT, [IPV6]:PORT or :PORT")]
pub struct NotAnAddress;

impl Listen {
    /// Its address with a port: its own, else this one.
    pub fn or_port(self, port: u16) -> SocketAddr {
        SocketAddr::new(self.ip, self.port.unwrap_or(port))
    }
}

impl From<IpAddr> for Listen {
    fn from(ip: IpAddr) -> Self {
        Self { ip, port: None }
    }
}

impl FromStr for Listen {
    type Err = NotAnAddress;

    fn from_str(text: &str) -> Result<Self, NotAnAddress> {
        let text = text.trim();
        if let Ok(ip) = text.parse::<IpAddr>() {
            return Ok(ip.into());
        }
        if let Some(port) = text.strip_prefix(':').filter(|port| !port.starts_with('+')) {
            let port = port.parse().map_err(|_| NotAnAddress)?;
            return Ok(Self { ip: Ipv4Addr::UNSPECIFIED.into(), port: Some(port) });
        }
        let address: SocketAddr = text.parse().map_err(|_| NotAnAddress)?;
        Ok(Self { ip: address.ip(), port: Some(address.port()) })
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.port {
            Some(port) => SocketAddr::new(self.ip, port).fmt(f),
            None => self.ip.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_taken_with_and_without_a_port() {
        for (text, address) in [
            ("10.0.0.1", "10.0.0.1:2222"),
            ("10.0.0.1:7", "10.0.0.1:7"),
            (" ::1", "[::1]:2222"),
            ("[::1]:7", "[::1]:7"),
            (":7", "0.0.0.0:7"),
        ] {
            let listen: Listen = text.parse().unwrap();
            assert_eq!(listen.or_port(2222).to_string(), address, "{text}");
            assert_eq!(listen.to_string().parse(), Ok(listen), "{text}");
        }
        for text in ["", "here", ":", ":+7", ":70000", "10.0.0.1:", "[::1]", "1:2:3"] {
            assert_eq!(text.parse::<Listen>(), Err(NotAnAddress), "{text}");
        }
    }
}
