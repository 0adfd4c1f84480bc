//! Messages between this process and the one inside the namespace: JSON with a length in front, and descriptors.

use std::{
    io::{self, IoSlice, IoSliceMut, Read, Write},
    mem::MaybeUninit,
    net::SocketAddr,
    os::{
        fd::{BorrowedFd, OwnedFd},
        unix::net::UnixStream,
    },
};

use rustix::{
    cmsg_space,
    net::{
        RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
        recvmsg, sendmsg,
    },
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

/// What is to be made inside. The sockets are handed out in this order, those that observe at the end.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Plan {
    /// Listening sockets. `[::]` takes both families.
    pub(super) tcp: Vec<SocketAddr>,
    pub(super) udp: Vec<SocketAddr>,
}

/// What became of it.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Outcome {
    /// As many sockets follow.
    Made(usize),
    Failed(Failed),
}

/// The step that failed, and the number of the system's error.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) struct Failed {
    pub(super) step: Step,
    pub(super) errno: i32,
}

/// A step inside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Step {
    Unshare,
    MapUser,
    Loopback,
    Socket(SocketAddr),
    Observe,
    /// Talking to this process.
    Channel,
    Execute,
}

/// The tool. Words and variables are bytes that need not be UTF-8.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Start {
    pub(super) words: Vec<Vec<u8>>,
    pub(super) set: Vec<(Vec<u8>, Vec<u8>)>,
    pub(super) unset: Vec<Vec<u8>>,
}

/// Sends a message.
pub(super) fn send(mut to: &UnixStream, message: &impl Serialize) -> io::Result<()> {
    let bytes = serde_json::to_vec(message)?;
    let length = u32::try_from(bytes.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    to.write_all(&[&length.to_ne_bytes(), bytes.as_slice()].concat())
}

/// Receives a message; `None` at the end.
pub(super) fn receive<T: DeserializeOwned>(mut from: &UnixStream) -> io::Result<Option<T>> {
    let mut length = [0; 4];
    match from.read(&mut length)? {
        0 => return Ok(None),
        count => from.read_exact(&mut length[count..])?,
    }
    let mut bytes = Vec::new();
    from.take(u32::from_ne_bytes(length).into()).read_to_end(&mut bytes)?;
    Ok(Some(serde_json::from_slice(&bytes)?))
}

/// As many descriptors go in one message (`SCM_MAX_FD` is 253 in the kernel's include/net/scm.h).
const MOST: usize = 128;

/// Sends descriptors.
pub(super) fn send_descriptors(to: &UnixStream, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
    for some in descriptors.chunks(MOST) {
        let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(MOST))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !control.push(SendAncillaryMessage::ScmRights(some)) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        // Descriptors travel with at least one byte.
        sendmsg(to, &[IoSlice::new(&[0])], &mut control, SendFlags::empty())?;
    }
    Ok(())
}

/// Receives that many descriptors.
pub(super) fn receive_descriptors(from: &UnixStream, count: usize) -> io::Result<Vec<OwnedFd>> {
    let mut descriptors = Vec::new();
    while descriptors.len() < count {
        let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(MOST))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let received = recvmsg(from, &mut [IoSliceMut::new(&mut [0])], &mut control, RecvFlags::CMSG_CLOEXEC)?;
        if received.bytes == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(some) = message {
                descriptors.extend(some);
            }
        }
    }
    Ok(descriptors)
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn messages_and_many_descriptors_arrive_in_order() {
        let (one, other) = UnixStream::pair().unwrap();
        let pipes: Vec<_> = (0..MOST + 5).map(|_| io::pipe().unwrap()).collect();
        let plan = Plan { tcp: vec!["[::]:9292".parse().unwrap()], udp: Vec::new() };
        send(&one, &plan).unwrap();
        let writers: Vec<_> = pipes.iter().map(|(_, writer)| writer.as_fd()).collect();
        send_descriptors(&one, &writers).unwrap();
        drop(one);
        assert_eq!(receive::<Plan>(&other).unwrap().unwrap().tcp, plan.tcp);
        let received = receive_descriptors(&other, pipes.len()).unwrap();
        for (number, descriptor) in received.into_iter().enumerate() {
            std::fs::File::from(descriptor).write_all(&[number as u8]).unwrap();
        }
        for (number, (mut reader, writer)) in pipes.into_iter().enumerate() {
            drop(writer);
            let mut bytes = Vec::new();
            reader.read_to_end(&mut bytes).unwrap();
            assert_eq!(bytes, [number as u8]);
        }
        assert!(receive::<Plan>(&other).unwrap().is_none());
    }
}
