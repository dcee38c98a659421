//! The TCP connection of a check: to the first of several addresses that accepts it.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::{Pin, pin};
use std::time::Duration;

use nix::libc;
use tokio::net::{TcpSocket, TcpStream};

use super::check_error::is_from_the_network;

/// A further address is tried beside one that has not answered for so long (RFC 8305, section 5).
const ATTEMPT_DELAY: Duration = Duration::from_millis(250);
/// The local ports that only root can bind and that no service is given (rresvport(3)), highest first.
const RESERVED_PORTS: std::ops::RangeInclusive<u16> = 512..=1023;

/// Opens a connection to the first of these addresses that accepts one, within the caller's deadline,
/// which is `limit` from now. An address that does not answer takes no time from the ones after it, and
/// stays in the race. When all fail, the error is one of an address that was really asked, if there is one.
pub(super) async fn first<T>(
    addresses: &[SocketAddr],
    limit: Duration,
    open: impl AsyncFn(SocketAddr) -> io::Result<T>,
) -> io::Result<(T, SocketAddr)> {
    let share = u32::try_from(addresses.len()).map_or(Duration::ZERO, |count| limit / count.max(1));
    first_paced(addresses, share.min(ATTEMPT_DELAY), &open).await
}

async fn first_paced<T>(
    addresses: &[SocketAddr],
    pace: Duration,
    open: &impl AsyncFn(SocketAddr) -> io::Result<T>,
) -> io::Result<(T, SocketAddr)> {
    let [first, others @ ..] = addresses else {
        return Err(io::Error::from_raw_os_error(libc::EADDRNOTAVAIL));
    };
    let attempt = async { open(*first).await.map(|opened| (opened, *first)) };
    if others.is_empty() {
        return attempt.await;
    }
    let mut attempt = pin!(attempt);
    let mut others: Pin<Box<dyn Future<Output = _>>> = Box::pin(first_paced(others, pace, open));
    match tokio::time::timeout(pace, &mut attempt).await {
        Ok(Ok(opened)) => Ok(opened),
        Ok(Err(error)) => others.await.map_err(|other| more_telling(error, other)),
        Err(_) => tokio::select! {
            biased;
            opened = &mut attempt => match opened {
                Ok(opened) => Ok(opened),
                Err(error) => others.await.map_err(|other| more_telling(error, other)),
            },
            opened = &mut others => match opened {
                Ok(opened) => Ok(opened),
                Err(other) => attempt.await.map_err(|error| more_telling(error, other)),
            },
        },
    }
}

/// The error of the address that was asked; the later one, where both or neither was.
fn more_telling(earlier: io::Error, later: io::Error) -> io::Error {
    if is_from_the_network(&earlier) && !is_from_the_network(&later) {
        earlier
    } else {
        later
    }
}

/// Connects to this address.
pub(super) async fn open(address: SocketAddr) -> io::Result<TcpStream> {
    match socket_for(address)?.connect(address).await {
        // All local ports of the usual range are taken.
        Err(error) if error.raw_os_error() == Some(libc::EADDRNOTAVAIL) => {
            let Some(socket) = with_reserved_port(address) else {
                return Err(error);
            };
            socket.connect(address).await
        }
        connected => connected,
    }
}

fn socket_for(address: SocketAddr) -> io::Result<TcpSocket> {
    match address {
        SocketAddr::V4(_) => TcpSocket::new_v4(),
        SocketAddr::V6(_) => TcpSocket::new_v6(),
    }
}

/// A socket with a local port below 1024, which others than root cannot have used up.
fn with_reserved_port(address: SocketAddr) -> Option<TcpSocket> {
    let socket = socket_for(address).ok()?;
    let any = match address {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    for port in RESERVED_PORTS.rev() {
        match socket.bind(SocketAddr::new(any, port)) {
            Ok(()) => return Some(socket),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => (),
            // We are not root.
            Err(_) => return None,
        }
    }
    None
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::net::{TcpListener, TcpStream as Blocking};

    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    /// An address whose accept queue is full: it drops SYNs. The clients keep it so.
    fn deaf() -> (SocketAddr, socket2::Socket, Vec<Blocking>) {
        let socket =
            socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        socket
            .bind(&SocketAddr::from(([127, 0, 0, 2], 0)).into())
            .unwrap();
        socket.listen(0).unwrap();
        let address = socket.local_addr().unwrap().as_socket().unwrap();
        let mut clients = Vec::new();
        while let Ok(client) = Blocking::connect_timeout(&address, Duration::from_millis(300)) {
            clients.push(client);
        }
        (address, socket, clients)
    }

    fn listener() -> (TcpListener, SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        (listener, address)
    }

    /// A port that nobody listens on, and that nobody else is given while the socket lives.
    fn refusing() -> (socket2::Socket, SocketAddr) {
        let socket =
            socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        socket
            .bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into())
            .unwrap();
        let address = socket.local_addr().unwrap().as_socket().unwrap();
        (socket, address)
    }

    #[tokio::test(flavor = "current_thread")]
    async fn hazard_36_an_address_that_drops_syns_does_not_use_up_the_deadline() {
        let (dead, _socket, _clients) = deaf();
        let (_listener, healthy) = listener();
        let (_refusing, refused) = refusing();
        for addresses in [
            vec![dead, healthy],
            vec![dead, refused, healthy],
            vec![dead, dead, dead, healthy],
        ] {
            let connecting = first(&addresses, LONG, open);
            let (_, from) = tokio::time::timeout(LONG, connecting)
                .await
                .unwrap()
                .unwrap();
            assert_eq!(from, healthy);
        }
        // Nobody else answers: the dead one has the whole deadline.
        let limit = Duration::from_secs(1);
        for addresses in [vec![dead, refused], vec![refused, dead], vec![dead]] {
            let connecting = first(&addresses, limit, open);
            assert!(tokio::time::timeout(limit, connecting).await.is_err());
        }
    }

    #[tokio::test(flavor = "current_thread")]
    async fn what_was_asked_tells_more_than_what_was_not() {
        let (_refusing, refused) = refusing();
        // No route leads to a multicast address over TCP: ENETUNREACH.
        let unasked = SocketAddr::from(([224, 0, 0, 1], 9143));
        let error = first(&[unasked], LONG, open).await.unwrap_err();
        assert!(!is_from_the_network(&error), "{error}");
        for addresses in [[unasked, refused], [refused, unasked]] {
            let error = first(&addresses, LONG, open).await.unwrap_err();
            assert_eq!(error.raw_os_error(), Some(libc::ECONNREFUSED));
        }
        let (_listener, healthy) = listener();
        let (_, from) = first(&[unasked, healthy], LONG, open).await.unwrap();
        assert_eq!(from, healthy);
    }
}
