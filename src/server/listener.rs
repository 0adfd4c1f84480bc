//! Accepts connections, in every worker from the same socket.

use std::{io, rc::Rc, time::Duration};

use tokio::{net::TcpListener, sync::watch, task::JoinSet, time::sleep};

use crate::proxy::{Entry, Proxy};

use super::{
    Stop,
    client::ClientStream,
    connection::{ClientLimits, serve},
};

/// Out of descriptors or memory, accepting waits this long before it tries again.
const BACK_OFF: Duration = Duration::from_millis(50);

/// Accepts and serves until it is to stop; then waits for what runs.
pub async fn accept(
    listener: TcpListener,
    entry: Entry,
    proxy: Rc<Proxy>,
    limits: ClientLimits,
    mut stop: watch::Receiver<Stop>,
) {
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = stop.wait_for(|stop| *stop >= Stop::Drain) => break,
            Some(_) = connections.join_next() => continue,
        };
        match accepted {
            Ok((tcp, address)) => {
                // Small answers must not wait for the acknowledgement of the last one.
                let _ = tcp.set_nodelay(true);
                let stream = ClientStream::new(tcp, address);
                let connection = serve(stream, entry.clone(), proxy.clone(), limits, stop.clone());
                connections.spawn_local(connection);
            }
            Err(error) if is_the_clients(&error) => {}
            Err(error) => {
                tracing::error!(%error, listener = %entry.name, "cannot accept a connection; trying again");
                sleep(BACK_OFF).await;
            }
        }
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}

/// accept(2) reports some errors of the connection that was to be accepted.
fn is_the_clients(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset)
}
