//! Opens the addresses that the operator listens on.
//!
//! `[::]` takes IPv4 as well, whatever the system's default is, and is `0.0.0.0` where the system has no
//! IPv6; every other address is opened as it was written. Nothing here asks who comes.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
};

use rustix::io::Errno;
use socket2::{Domain, Socket, Type};
use tokio::net::TcpListener;

/// Connections that the kernel keeps for us until they are taken.
const BACKLOG: i32 = 1024;

/// Listens on `address`.
///
/// # Errors
/// It cannot be listened on.
pub fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    open(address).or_else(|error| {
        let ipv4 = without_ipv6(address, &error).ok_or(error)?;
        let listener = open(ipv4)?;
        tracing::info!(%address, instead = %ipv4, "no IPv6 on this system: listening on IPv4 alone");
        Ok(listener)
    })
}

/// What to listen on in place of `address`, if `error` says that the system has no IPv6.
fn without_ipv6(address: SocketAddr, error: &io::Error) -> Option<SocketAddr> {
    let none =
        matches!(Errno::from_io_error(error), Some(Errno::AFNOSUPPORT | Errno::ADDRNOTAVAIL));
    (none && all(address)).then(|| (Ipv4Addr::UNSPECIFIED, address.port()).into())
}

/// Whether it is `[::]`.
fn all(address: SocketAddr) -> bool {
    address.is_ipv6() && address.ip().is_unspecified()
}

fn open(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    if all(address) {
        socket.set_only_v6(false)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_all_addresses_become_those_of_ipv4_and_only_without_ipv6() {
        let address = |text: &str| text.parse::<SocketAddr>().unwrap();
        let instead = |text, errno: Errno| without_ipv6(address(text), &errno.into());
        for errno in [Errno::AFNOSUPPORT, Errno::ADDRNOTAVAIL] {
            assert_eq!(instead("[::]:8080", errno), Some(address("0.0.0.0:8080")));
            for chosen in ["[::1]:8080", "[fd00::1]:8080", "0.0.0.0:8080", "10.0.0.1:8080"] {
                assert_eq!(instead(chosen, errno), None, "{chosen}");
            }
        }
        assert_eq!(instead("[::]:8080", Errno::ADDRINUSE), None);
    }
}
