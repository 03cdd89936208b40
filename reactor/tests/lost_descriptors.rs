//! Descriptors that come when no more may be opened. In a process of its own, because the limit holds for
//! all its threads.

#![cfg(target_os = "linux")]

use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;

use ropewalk::{ConnectionLost, Deferred, Protocol, Reactor, Resolver, Transport};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

struct Keeper(Vec<OwnedFd>, Option<Resolver<ConnectionLost>>);

impl Protocol for Keeper {
    fn file_descriptor_received(&mut self, _: &Transport, descriptor: OwnedFd) {
        self.0.push(descriptor);
    }

    fn data_received(&mut self, _: &Transport, data: &[u8]) {
        panic!("bytes without their descriptors: {data:?}");
    }

    fn connection_lost(&mut self, reason: ConnectionLost) {
        self.1.take().unwrap().callback(reason);
    }
}

#[test]
fn a_connection_whose_descriptors_are_lost_ends_with_an_error() {
    let reactor = Reactor::new().unwrap();
    let (near, far) = UnixStream::pair().unwrap();
    let (lost, resolver) = Deferred::new();
    reactor.adopt_stream(near, Box::new(Keeper(Vec::new(), Some(resolver)))).unwrap();

    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let passed = [far.as_fd(), far.as_fd()];
    assert!(control.push(SendAncillaryMessage::ScmRights(&passed)));
    let bytes = [IoSlice::new(b"two of them")];
    sendmsg(&far, &bytes, &mut control, SendFlags::empty()).unwrap();

    let limit = getrlimit(Resource::Nofile);
    // Nothing can be opened any more: new ones get the lowest free number, and the limit bounds that.
    setrlimit(Resource::Nofile, Rlimit { current: Some(0), ..limit }).unwrap();
    let reason = reactor.run_until(lost);
    setrlimit(Resource::Nofile, limit).unwrap();
    let reason = reason.unwrap();
    let error = reason.io_error().unwrap().to_string();
    assert!(error.contains("are lost") && error.contains("raise its limit"), "{error}");
}
