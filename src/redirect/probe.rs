//! The child of `redirect-rules --check`: connects as another user, sends nothing, and tells what came of it.

use std::{
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream},
    thread,
    time::Duration,
};

/// A connection that leads to no host takes so long.
const PATIENCE: Duration = Duration::from_secs(2);

/// Connects to each address, writes a line for each in their order: `connected LOCAL`, or `failed WHY`. The connections
/// are kept until the standard input ends.
///
/// # Errors
/// The standard input and output.
pub fn probe(addresses: &[SocketAddr]) -> io::Result<()> {
    let attempts: Vec<_> = addresses.iter().copied().map(|to| thread::spawn(move || connect(to))).collect();
    let mut output = io::stdout().lock();
    let mut kept = Vec::new();
    for attempt in attempts {
        let end = attempt.join().unwrap_or_else(|_| Err(io::ErrorKind::Other.into()));
        match end.and_then(|stream| Ok((stream.local_addr()?, stream))) {
            Ok((local, stream)) => {
                writeln!(output, "connected {local}")?;
                kept.push(stream);
            }
            Err(error) => writeln!(output, "failed {error}")?,
        }
    }
    output.flush()?;
    io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}

#[expect(clippy::disallowed_methods, reason = "nothing is sent to anybody")]
fn connect(to: SocketAddr) -> io::Result<TcpStream> {
    TcpStream::connect_timeout(&to, PATIENCE)
}
