//! TCP with one deadline over all addresses: a new attempt starts when the last one failed, or was
//! silent for a moment (RFC 8305 section 5); the first that stands is taken.

use std::{io, net::SocketAddr, pin::Pin, time::Duration};

use tokio::{
    net::TcpStream,
    time::{Instant, sleep_until},
};

use super::error::ConnectError;

/// RFC 8305 section 5 recommends 250 ms.
const STAGGER: Duration = Duration::from_millis(250);

/// Connects to the first of the addresses that answers.
///
/// # Errors
/// [`ConnectError::Tcp`] with the last failure, or [`ConnectError::ConnectTimeout`].
pub async fn dial(
    addresses: &[SocketAddr],
    deadline: Instant,
    limit: Duration,
) -> Result<(TcpStream, SocketAddr), ConnectError> {
    let mut waiting = addresses.iter().copied();
    let mut running: Vec<Attempt> = Vec::new();
    let mut last_error = None;
    let mut next_start = Instant::now();
    loop {
        if Instant::now() >= next_start || running.is_empty() {
            match waiting.next() {
                Some(address) => {
                    running.push(Box::pin(attempt(address)));
                    next_start = Instant::now() + STAGGER;
                }
                None if running.is_empty() => {
                    return Err(last_error.unwrap_or(ConnectError::ConnectTimeout { after: limit }));
                }
                None => next_start = deadline,
            }
        }
        tokio::select! {
            (index, result) = first(&mut running) => {
                drop(running.swap_remove(index));
                match result {
                    (address, Ok(stream)) => return Ok((stream, address)),
                    (address, Err(error)) => last_error = Some(ConnectError::Tcp { address, error }),
                }
                next_start = Instant::now();
            }
            () = sleep_until(next_start.min(deadline)) => {
                if Instant::now() >= deadline {
                    return Err(ConnectError::ConnectTimeout { after: limit });
                }
            }
        }
    }
}

type Attempt = Pin<Box<dyn Future<Output = (SocketAddr, io::Result<TcpStream>)>>>;

#[expect(clippy::disallowed_methods, reason = "this is the door")]
async fn attempt(address: SocketAddr) -> (SocketAddr, io::Result<TcpStream>) {
    let stream = TcpStream::connect(address).await;
    let stream = stream.and_then(|stream| stream.set_nodelay(true).map(|()| stream));
    (address, stream)
}

async fn first(running: &mut [Attempt]) -> (usize, (SocketAddr, io::Result<TcpStream>)) {
    std::future::poll_fn(|cx| {
        for (index, attempt) in running.iter_mut().enumerate() {
            if let std::task::Poll::Ready(result) = attempt.as_mut().poll(cx) {
                return std::task::Poll::Ready((index, result));
            }
        }
        std::task::Poll::Pending
    })
    .await
}
