//! Accepts connections, in every worker from the same socket.

use std::{io, rc::Rc, time::Duration};

use socket2::SockRef;
use tokio::{io::Interest, net::TcpListener, task::JoinSet, time::sleep};

use super::{
    Stop,
    client::ClientStream,
    connection::{Door, refuse, serve},
    places::Places,
};

/// Out of descriptors or memory, accepting waits this long before it tries again.
const BACK_OFF: Duration = Duration::from_millis(50);

/// Bytes that wait in the system for a client to read on, beside those that are on their way.
const UNSENT: u32 = 128 << 10;

/// What every connection of a socket is to have from the beginning: on Linux an accepted one has what the listening one
/// has (`sk_clone` in the kernel's net/core/sock.c), which saves three calls for each.
///
/// # Errors
/// The system's.
pub fn prepare(listener: &std::net::TcpListener) -> io::Result<()> {
    let socket = SockRef::from(listener);
    // Small answers must not wait for the acknowledgement of the last one.
    socket.set_tcp_nodelay(true)?;
    // A client that reads slowly takes long to make room in all that the system would buffer for it, and would
    // seem not to read at all.
    socket.set_tcp_notsent_lowat(UNSENT)?;
    // The end of a connection is a RST, also where the process is killed; only an orderly one is not.
    socket.set_linger(Some(Duration::ZERO))
}

/// Accepts and serves until it is to stop; then waits for what runs.
pub async fn accept(listener: TcpListener, door: Rc<Door>, places: Places) {
    let mut stop = door.stop.clone();
    let mut connections = JoinSet::new();
    let mut fails = false;
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = stop.wait_for(|stop| *stop >= Stop::Drain) => break,
            Some(_) = connections.join_next() => continue,
        };
        let (tcp, address) = match accepted {
            Ok(accepted) => accepted,
            Err(error) if is_the_clients(&error) => continue,
            Err(error) => {
                if !std::mem::replace(&mut fails, true) {
                    tracing::error!(%error, listener = %door.entry.name, "cannot accept a connection; trying again");
                }
                sleep(BACK_OFF).await;
                continue;
            }
        };
        if std::mem::take(&mut fails) {
            tracing::info!(listener = %door.entry.name, "connections are accepted again");
        }
        let (door, places) = (door.clone(), places.clone());
        if let Some(place) = places.free() {
            let stream = Box::new(ClientStream::new(tcp, address));
            connections.spawn_local(async move {
                serve(stream, &door).await;
                drop(place);
            });
        } else if let Some(seat) = places.seat() {
            connections.spawn_local(async move {
                let mut ends = door.stop.clone();
                let place = tokio::select! {
                    place = places.wait() => place,
                    // It has gone away.
                    _ = tcp.ready(Interest::ERROR) => return,
                    _ = ends.wait_for(|stop| *stop >= Stop::Drain) => None,
                };
                let stream = Box::new(ClientStream::new(tcp, address));
                let Some(place) = place else { return refuse(stream, &door).await };
                drop(seat);
                serve(stream, &door).await;
                drop(place);
            });
        } else {
            ClientStream::new(tcp, address).handle().reset();
        }
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}

/// accept(2) reports some errors of the connection that was to be accepted.
fn is_the_clients(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset)
}
