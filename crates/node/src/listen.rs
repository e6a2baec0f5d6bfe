//! Sockets to listen on.

use std::{
    fmt, io,
    net::{SocketAddr, TcpListener},
};

use socket2::{Domain, Protocol, Socket, Type};

/// The addresses of one listener: none (`"off"`), one or several.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Listen(pub Vec<SocketAddr>);

impl Listen {
    /// True when nothing listens.
    pub fn is_off(&self) -> bool {
        self.0.is_empty()
    }

    /// Opens every address, non-blocking and ready for `tokio::net::TcpListener::from_std`.
    ///
    /// An IPv6 address on a machine without IPv6 is left out as long as another address could be opened. A
    /// `[::]` socket takes IPv6 only, so that it does not collide with `0.0.0.0`.
    ///
    /// # Errors
    /// The first address that cannot be opened. Addresses opened before it are closed again.
    pub fn open(&self) -> Result<Vec<TcpListener>, ListenError> {
        let mut open = Vec::with_capacity(self.0.len());
        let mut without_ipv6 = None;
        for address in &self.0 {
            match listen(*address) {
                Ok(socket) => open.push(socket),
                Err(error) if address.is_ipv6() && no_ipv6(&error) => {
                    without_ipv6 = Some(ListenError { address: *address, source: error });
                }
                Err(source) => return Err(ListenError { address: *address, source }),
            }
        }
        match without_ipv6 {
            Some(error) if open.is_empty() => Err(error),
            _ => Ok(open),
        }
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_off() {
            return f.write_str("off");
        }
        for (at, address) in self.0.iter().enumerate() {
            let comma = if at == 0 { "" } else { ", " };
            write!(f, "{comma}{address}")?;
        }
        Ok(())
    }
}

/// An address that cannot be listened on.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}: {source}; {}", self.advice())]
pub struct ListenError {
    /// The address.
    pub address: SocketAddr,
    /// What the operating system said.
    pub source: io::Error,
}

impl ListenError {
    /// What to do about it.
    pub fn advice(&self) -> &'static str {
        match self.source.kind() {
            io::ErrorKind::AddrInUse => {
                "another process uses it: stop that one (`ss -ltnp` shows it), or choose another port, or port 0 for any free one"
            }
            io::ErrorKind::PermissionDenied => "ports below 1024 need a privilege: choose a higher port",
            io::ErrorKind::AddrNotAvailable => "this machine does not have that address",
            _ => "check the address",
        }
    }
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    // A restart must not wait for the TIME_WAIT of the connections before it.
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

fn no_ipv6(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(code) if code == nix::libc::EAFNOSUPPORT || code == nix::libc::EADDRNOTAVAIL)
}

/// Connections that wait for us to accept them; the kernel caps it at `net.core.somaxconn`.
const BACKLOG: i32 = 4_096;

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn opens_any_free_port() {
        let open = Listen(vec![at("127.0.0.1:0")]).open().unwrap();
        assert_eq!(open.len(), 1);
        assert_ne!(open[0].local_addr().unwrap().port(), 0);
    }

    #[test]
    fn says_what_to_do_about_a_busy_port() {
        let first = Listen(vec![at("127.0.0.1:0")]).open().unwrap();
        let busy = first[0].local_addr().unwrap();
        let error = Listen(vec![busy]).open().unwrap_err();
        assert_eq!(error.address, busy);
        assert!(error.to_string().contains("another process uses it"), "{error}");
    }

    #[test]
    fn off_opens_nothing() {
        assert!(Listen::default().open().unwrap().is_empty());
        assert_eq!(Listen::default().to_string(), "off");
    }
}
