//! Opens the addresses that a node listens on, and takes connections there.
//!
//! `[::]` takes IPv4 as well, whatever the system's default is, and is `0.0.0.0` where the system has no
//! IPv6; every other address is opened as it was written. A client of IPv4 has its IPv4 address however it
//! came: nothing past [`accept`] may see `::ffff:a.b.c.d`, which is nobody's address.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};

use rustix::io::Errno;
use socket2::{Domain, Socket, Type};
use tokio::net::{TcpListener, TcpStream};

/// Connections that the kernel keeps for us until they are taken.
const BACKLOG: i32 = 4096;

/// Listens on `address`, `host:port`: on the first of the host's addresses that can be had.
///
/// # Errors
/// It is no address, or none that can be listened on.
pub async fn bind(address: &str) -> io::Result<TcpListener> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "no such address");
    for address in tokio::net::lookup_host(address).await? {
        match either(address) {
            Ok(listener) => return Ok(listener),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// Takes the next connection, and tells whose it is. Nothing is lost when the wait is given up.
///
/// # Errors
/// What the system says, as when there are too many open files.
pub async fn accept(listener: &TcpListener) -> io::Result<(TcpStream, SocketAddr)> {
    let (stream, peer) = listener.accept().await?;
    Ok((stream, plain(peer)))
}

/// The address that a peer would give as its own.
pub(crate) fn plain(peer: SocketAddr) -> SocketAddr {
    // What has a scope is left alone.
    match peer.ip().to_canonical() {
        ip if ip.is_ipv4() => SocketAddr::new(ip, peer.port()),
        _ => peer,
    }
}

fn either(address: SocketAddr) -> io::Result<TcpListener> {
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

    fn address(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn only_all_addresses_become_those_of_ipv4_and_only_without_ipv6() {
        let instead = |text, errno: Errno| without_ipv6(address(text), &errno.into());
        for errno in [Errno::AFNOSUPPORT, Errno::ADDRNOTAVAIL] {
            assert_eq!(instead("[::]:4000", errno), Some(address("0.0.0.0:4000")));
            for chosen in ["[::1]:4000", "[fd00::1]:4000", "0.0.0.0:4000", "10.0.0.1:4000"] {
                assert_eq!(instead(chosen, errno), None, "{chosen}");
            }
        }
        assert_eq!(instead("[::]:4000", Errno::ADDRINUSE), None);
        assert_eq!(instead("[::]:400", Errno::ACCESS), None);
    }

    #[test]
    fn a_peer_of_ipv4_is_told_as_one() {
        assert_eq!(plain(address("[::ffff:10.0.0.1]:5")), address("10.0.0.1:5"));
        for same in ["10.0.0.1:5", "[fd00::1]:5", "[::1]:5", "[fe80::1%3]:5"] {
            assert_eq!(plain(address(same)), address(same));
        }
    }

    #[tokio::test]
    async fn an_address_that_is_taken_is_refused_and_not_shared() {
        let taken = bind("0.0.0.0:0").await.unwrap();
        let same = format!("[::]:{}", taken.local_addr().unwrap().port());
        assert_eq!(bind(&same).await.unwrap_err().kind(), io::ErrorKind::AddrInUse);
    }
}
