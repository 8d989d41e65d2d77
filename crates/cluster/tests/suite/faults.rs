//! A line that cuts, delays, swallows answers, and says again what was said long ago.

use crate::support::*;
use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, tcp::OwnedReadHalf, tcp::OwnedWriteHalf},
    time::sleep,
};

/// A relay in front of a collector.
#[derive(Default)]
pub(crate) struct Line {
    /// Whether it does as it should.
    pub(crate) is_good: AtomicBool,
    /// Whether it swallows what the collector says.
    pub(crate) is_mute: AtomicBool,
    pub(crate) cuts: AtomicU64,
    pub(crate) replays: AtomicU64,
    random: AtomicU64,
}

impl Line {
    pub(crate) async fn to(collector: SocketAddr) -> (Arc<Self>, SocketAddr) {
        let line = Arc::new(Self::default());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let relay = line.clone();
        tokio::spawn(async move {
            loop {
                let (near, _) = listener.accept().await.unwrap();
                let far = TcpStream::connect(collector).await.unwrap();
                tokio::spawn(relay.clone().relay(near, far, collector));
            }
        });
        (line, address)
    }

    /// A walk that is the same in every run of the tests.
    fn random(&self, below: u64) -> u64 {
        let step = self.random.fetch_add(1, Relaxed) + 1;
        let mixed = step.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        ((mixed ^ mixed >> 29).wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 33) % below
    }

    async fn relay(self: Arc<Self>, near: TcpStream, far: TcpStream, collector: SocketAddr) {
        let (near_read, near_write) = near.into_split();
        let (far_read, far_write) = far.into_split();
        // A greeting takes some 500 bytes; every fourth connection is cut within it.
        let there = if self.random(4) == 0 {
            500
        } else {
            500 + self.random(20_000)
        };
        let back = 200 + self.random(600);
        let mut said = Vec::new();
        tokio::select! {
            () = self.copy(near_read, far_write, there, Some(&mut said)) => {}
            () = self.copy(far_read, near_write, back, None) => {}
        }
        self.cuts.fetch_add(1, Relaxed);
        if !self.is_good.load(Relaxed) && self.random(2) == 0 {
            self.replays.fetch_add(1, Relaxed);
            let delay = Duration::from_millis(self.random(400));
            tokio::spawn(replay(said, collector, delay));
        }
    }

    /// Copies bytes until the end, or until a number is reached and the line is bad.
    async fn copy(
        &self,
        mut from: OwnedReadHalf,
        mut to: OwnedWriteHalf,
        bytes_max: u64,
        mut kept: Option<&mut Vec<u8>>,
    ) {
        let mut copied = 0;
        let mut buffer = [0; 1024];
        while let Ok(count @ 1..) = from.read(&mut buffer).await {
            copied += count as u64;
            if !self.is_good.load(Relaxed) {
                if copied > bytes_max && bytes_max > 0 {
                    return;
                }
                sleep(Duration::from_millis(self.random(5))).await;
            }
            if let Some(kept) = &mut kept {
                kept.extend_from_slice(&buffer[..count]);
            } else if self.is_mute.load(Relaxed) {
                continue;
            }
            if to.write_all(&buffer[..count]).await.is_err() {
                return;
            }
        }
    }
}

/// Says again what a connection said that is over: late, twice, and after newer ones.
async fn replay(said: Vec<u8>, collector: SocketAddr, delay: Duration) {
    sleep(delay).await;
    let mut far = TcpStream::connect(collector).await.unwrap();
    far.write_all(&said).await.ok();
    let mut answers = vec![0; 65_536];
    // Until the collector has nothing more to say about it.
    while let Ok(Ok(1..)) =
        tokio::time::timeout(Duration::from_secs(1), far.read(&mut answers)).await
    {}
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_the_line_does_the_stores_agree_in_the_end() {
    let (here, there) = two_directories();
    let mut agent = Agent::new(here.path(), NODE);
    let collector = Collector::start(there.path()).await;
    let (line, address) = Line::to(collector.address).await;
    let mut sending = agent.send_to(address);
    let mut killed = 0;
    let mut step = 0;
    while line.cuts.load(Relaxed) < 25 || line.replays.load(Relaxed) < 8 {
        agent.work(step);
        step += 1;
        assert!(step < 20_000, "the line is too good");
        if step % 97 == 0 {
            agent.restart();
        }
        // Waiting for another try takes longer and longer: a new sender tries at once.
        if !sending.status.borrow().connected && step % 7 == 0 {
            sending.abort().await;
            sending = agent.send_to(address);
            killed += 1;
        }
        sleep(Duration::from_millis(10)).await;
    }
    line.is_good.store(true, Relaxed);
    sending.abort().await;
    let _sending = agent.send_to(address);
    until_told(&agent, &*collector.store).await;
    // What is still on its way from old connections changes nothing when it comes.
    sleep(Duration::from_millis(600)).await;
    assert_told(&agent, &*collector.store);
    assert!(
        killed > 5 && collector.batches_taken() > 10,
        "the test had faults and work"
    );
}
