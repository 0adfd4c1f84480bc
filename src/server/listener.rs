//! Accepts connections, in every worker from the same socket.

use std::{io, rc::Rc, time::Duration};

use tokio::{
    task::{JoinError, JoinSet},
    time::sleep,
};

use crate::metrics::OpenConnection;

use super::{
    Stop,
    limiter::ConnectionLimiter,
    session::{SessionContext, refuse, serve},
    socket::{AcceptedConnection, Acceptor},
};

/// Out of descriptors or memory, accepting waits this long before it tries again.
const BACK_OFF: Duration = Duration::from_millis(50);

/// Accepts and serves until the process is about to end; then waits for what is under way, or cuts it.
pub async fn accept(listener: Acceptor, context: Rc<SessionContext>, limiter: ConnectionLimiter) {
    let mut stop = context.stop.clone();
    let mut connections = JoinSet::new();
    let mut fails = false;
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = stop.wait_for(|stop| *stop >= Stop::Drain) => break,
            Some(ended) = connections.join_next() => {
                report_panic(&ended, &context);
                continue;
            }
        };
        match accepted {
            Ok(connection) => {
                if std::mem::take(&mut fails) {
                    tracing::info!(listener = %context.name, "connections are accepted again");
                }
                begin(connection, &context, &limiter, &mut connections);
            }
            Err(error) if is_the_clients(&error) => {}
            Err(error) => {
                if !std::mem::replace(&mut fails, true) {
                    tracing::error!(%error, listener = %context.name, "cannot accept a connection; trying again");
                }
                sleep(BACK_OFF).await;
            }
        }
    }
    drop(listener);
    loop {
        tokio::select! {
            ended = connections.join_next() => match ended {
                Some(ended) => report_panic(&ended, &context),
                None => return,
            },
            // Dropped, each connection ends by RST, and each exchange is recorded as interrupted.
            _ = stop.wait_for(|stop| *stop >= Stop::Now) => {
                connections.shutdown().await;
                return;
            }
        }
    }
}

/// Serves a connection, now or as soon as there is a permit for it.
fn begin(
    connection: AcceptedConnection,
    context: &Rc<SessionContext>,
    limiter: &ConnectionLimiter,
    connections: &mut JoinSet<()>,
) {
    let context = context.clone();
    let open = OpenConnection::new(&context.connections);
    if let Some(permit) = limiter.try_acquire() {
        connections.spawn_local(async move {
            serve(connection, &context).await;
            drop((permit, open));
        });
    } else if let Some(queued) = limiter.queue() {
        let limiter = limiter.clone();
        connections.spawn_local(async move {
            let mut stop = context.stop.clone();
            let permit = tokio::select! {
                permit = limiter.acquire() => permit,
                // It has gone away.
                () = connection.transport.reset() => return,
                _ = stop.wait_for(|stop| *stop >= Stop::Drain) => None,
            };
            let Some(permit) = permit else { return refuse(connection, &context).await };
            drop(queued);
            serve(connection, &context).await;
            drop((permit, open));
        });
    }
    // Otherwise it ends by RST.
}

/// A defect must not pass unnoticed, though it ends one connection only.
fn report_panic(ended: &Result<(), JoinError>, context: &SessionContext) {
    if ended.as_ref().is_err_and(JoinError::is_panic) {
        tracing::error!(event = "panic", listener = %context.name, "a connection ended by a defect of this program");
    }
}

/// accept(2) reports some errors of the connection that was to be accepted.
fn is_the_clients(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset)
}
