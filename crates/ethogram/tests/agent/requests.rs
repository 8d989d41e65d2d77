//! Requests that no client sends.

use std::{
    fs,
    io::{Read, Write},
    net::Shutdown,
    os::unix::net::UnixStream,
    time::Duration,
};

use crate::daemon::{Agent, until};

const REQUESTS: u32 = 3_000;
/// Chooses the requests: the same seed makes the same.
const SEED: u64 = 20_261_124;
/// How long a request that is not complete may be left unanswered.
const PATIENCE: Duration = Duration::from_secs(20);

/// What is changed.
const GOOD: &[&str] = &[
    "GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    "GET /v1/summary?pod=a&type=file,egress&status=deny&fold=none HTTP/1.1\r\nHost: x\r\n\r\n",
    "GET /v1/containers?label=a%3Db&since=2026-11-24T03:46:00Z HTTP/1.1\r\nHost: x\r\n\r\n",
    "POST /v1/status HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc",
    "GET /metrics HTTP/1.0\r\nAccept: */*\r\nConnection: close\r\n\r\n",
];

/// What servers have stumbled over.
const PIECES: &[&str] = &[
    "\r\n",
    "\n",
    "\0",
    "%00",
    "%",
    "%ff",
    "&",
    "=",
    "?",
    "/../",
    "//",
    "Host: \r\n",
    "Content-Length: 18446744073709551616\r\n",
    "Content-Length: -1\r\n",
    "Transfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n",
    "Upgrade: h2c\r\nConnection: Upgrade\r\n",
    "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "HTTP/9.9",
    "\u{7f}\u{9b}\u{202e}",
    "fold=99999999999999999999",
    "since=-1",
];

/// xorshift64*.
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % end.max(1)
    }

    fn request(&mut self) -> Vec<u8> {
        let mut request = GOOD[self.below(GOOD.len())].as_bytes().to_vec();
        for _ in 0..=self.below(6) {
            let at = self.below(request.len());
            match self.below(6) {
                0 if !request.is_empty() => request[at] = self.below(256) as u8,
                1 => request.truncate(at),
                2 => {
                    let again = request[at..].to_vec();
                    request.extend(again);
                }
                3 => {
                    let many = 1 << self.below(17);
                    request.splice(at..at, std::iter::repeat_n(b'a', many));
                }
                _ => {
                    let piece = PIECES[self.below(PIECES.len())];
                    request.splice(at..at, piece.bytes());
                }
            }
        }
        request
    }
}

fn send(agent: &Agent, request: &[u8]) -> Vec<u8> {
    let mut stream = UnixStream::connect(agent.socket()).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    // A server that refuses what it reads may close before it has read all.
    stream.write_all(request).ok();
    stream.shutdown(Shutdown::Write).ok();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).ok();
    answer
}

fn descriptors(agent: &Agent) -> usize {
    fs::read_dir(format!("/proc/{}/fd", agent.pid()))
        .unwrap()
        .count()
}

#[test]
fn no_request_is_too_strange() {
    let folder = tempfile::tempdir().unwrap();
    let agent = Agent::start(folder.path(), &[]);
    agent.get_fresh("/v1/status");
    let before = descriptors(&agent);
    let mut random = Random(SEED);
    let mut answered = 0;
    for number in 0..REQUESTS {
        let request = random.request();
        let answer = send(&agent, &request);
        let text = String::from_utf8_lossy(&answer);
        let said = || {
            format!(
                "request {number} {:?}: {text}",
                String::from_utf8_lossy(&request)
            )
        };
        assert!(
            answer.is_empty() || text.starts_with("HTTP/1."),
            "{}",
            said()
        );
        assert!(text.split(' ').nth(1) != Some("500"), "{}", said());
        answered += u32::from(!answer.is_empty());
    }
    assert!(answered > REQUESTS / 2, "only {answered} were answered");
    until("connections stay open", || {
        (descriptors(&agent) <= before + 2).then_some(())
    });
    assert_eq!(agent.get_fresh("/v1/status").status, 200);
    assert!(!agent.log().contains("panicked"), "{}", agent.log());
    agent.stop();
}
