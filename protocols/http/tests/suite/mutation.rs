//! The whole server under bytes that are nearly requests: it answers or closes, forgets nothing, and never
//! panics. A fuzzer's work in small, with the same cases in every run.

use ropewalk::testing::UnhandledErrors;
use ropewalk_http::Limits;

use crate::support::{HELLO, SECOND, Server, get};

pub(crate) const SEEDS: &[&str] = &[
    "GET /hello HTTP/1.1\r\nHost: h\r\n\r\nGET /big HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n",
    "POST /collect HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhelloGET /empty HTTP/1.1\r\nHost: h\r\n\r\n",
    "POST /collect HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n1;x=y\r\nd\r\n0\r\nt: u\r\n\r\n",
    "PUT /hold HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\nabcHEAD /hello HTTP/1.0\r\n\r\n",
    "GET http://h/hello?a=b HTTP/1.1\r\nHost: h\r\nX-A: b\r\nx-c:d\r\nUser-Agent: a/1 (b)\r\nAccept: */*\r\n\r\n",
];

/// Bytes that mean something to a parser.
const SPICE: &[u8] = b"\r\n :;,+-0123fFaZ\t\0\x7f\x80\xff/?#%*";

/// A small generator (xorshift64*), so that a case can be told by its number alone.
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    pub(crate) fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % limit
    }

    pub(crate) fn mutate(&mut self, bytes: &mut Vec<u8>) {
        if bytes.is_empty() {
            return;
        }
        let at = self.below(bytes.len());
        let spice = SPICE[self.below(SPICE.len())];
        match self.below(6) {
            0 => bytes.insert(at, spice),
            1 => bytes[at] = spice,
            2 => drop(bytes.remove(at)),
            3 => bytes[at] ^= 1 << self.below(8),
            4 => bytes.truncate(at.max(1)),
            _ => {
                let piece = bytes[at..(at + 12).min(bytes.len())].to_vec();
                let to = self.below(bytes.len());
                bytes.splice(to..to, piece);
            }
        }
    }
}

#[test]
fn nearly_requests_are_answered_or_refused_and_leave_nothing_behind() {
    let unhandled = UnhandledErrors::trap();
    for case in 0..600 {
        let mut dice = Dice(0x9e37_79b9_7f4a_7c15 ^ case);
        let server = Server::with_limits(Limits { body_bytes_max: 1000, ..Limits::default() });
        let mut bytes = SEEDS[dice.below(SEEDS.len())].as_bytes().to_vec();
        for _ in 0..=dice.below(4) {
            dice.mutate(&mut bytes);
        }
        let client = server.connect();
        let mut rest = &bytes[..];
        while !rest.is_empty() && !client.is_closed() {
            let piece;
            (piece, rest) = rest.split_at(1 + dice.below(rest.len()));
            client.send(piece);
            client.received();
        }
        let held = server.seen.held.take();
        for (request, resolver) in held {
            drop(request);
            resolver.callback(ropewalk_http::Response::new(http::StatusCode::OK));
        }
        client.received();
        // The server is as good as before.
        assert_eq!(server.connect().ask(&get("/hello")), HELLO, "case {case}");
        server.clock.advance(SECOND * 600);
        let text = String::from_utf8_lossy(&bytes);
        assert!(client.is_closed(), "case {case}: {text:?}");
        assert_eq!(server.factory.connection_count(), 0, "case {case}: {text:?}");
        assert_eq!(server.clock.pending_calls(), 0, "case {case}: {text:?}");
    }
    assert_eq!(unhandled.take().len(), 0);
}
