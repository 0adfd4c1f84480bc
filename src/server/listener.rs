//! Accepts connections, in every worker from the same socket.

use std::{io, rc::Rc, time::Duration};

use socket2::SockRef;
use tokio::{
    net::TcpListener,
    task::{JoinError, JoinSet},
    time::sleep,
};

use crate::transport::Transport;

use super::{
    Stop,
    limiter::ConnectionLimiter,
    session::{SessionContext, refuse, serve},
};

/// Out of descriptors or memory, accepting waits this long before it tries again.
const BACK_OFF: Duration = Duration::from_millis(50);

/// Bytes that wait in the system for a client to read on, besides those that are on their way.
const UNSENT: u32 = 128 << 10;

/// What every connection of a socket is to have from the beginning: on Linux an accepted one has what the listening one
/// has (`sk_clone` in the kernel's net/core/sock.c), which saves three calls for each.
///
/// # Errors
/// The system's.
pub fn prepare(listener: &std::net::TcpListener) -> io::Result<()> {
    let socket = SockRef::from(listener);
    // Small responses must not wait for the acknowledgement of the last one.
    socket.set_tcp_nodelay(true)?;
    // A client that reads slowly takes long to make room in all that the system would buffer for it, and would
    // seem not to read at all.
    socket.set_tcp_notsent_lowat(UNSENT)?;
    // A connection ends by RST, also where the process is killed, unless it ends in order.
    socket.set_linger(Some(Duration::ZERO))
}

/// Accepts and serves until the process is about to end; then waits for what is under way, or cuts it.
pub async fn accept(listener: TcpListener, context: Rc<SessionContext>, limiter: ConnectionLimiter) {
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
            Ok((tcp, address)) => {
                if std::mem::take(&mut fails) {
                    tracing::info!(listener = %context.name, "connections are accepted again");
                }
                begin(Transport::new(tcp, address), &context, &limiter, &mut connections);
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
    transport: Transport,
    context: &Rc<SessionContext>,
    limiter: &ConnectionLimiter,
    connections: &mut JoinSet<()>,
) {
    let context = context.clone();
    if let Some(permit) = limiter.try_acquire() {
        connections.spawn_local(async move {
            serve(transport, &context).await;
            drop(permit);
        });
    } else if let Some(queued) = limiter.queue() {
        let limiter = limiter.clone();
        connections.spawn_local(async move {
            let mut stop = context.stop.clone();
            let permit = tokio::select! {
                permit = limiter.acquire() => permit,
                // It has gone away.
                () = transport.reset() => return,
                _ = stop.wait_for(|stop| *stop >= Stop::Drain) => None,
            };
            let Some(permit) = permit else { return refuse(transport, &context).await };
            drop(queued);
            serve(transport, &context).await;
            drop(permit);
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
