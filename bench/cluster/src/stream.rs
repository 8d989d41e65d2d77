//! One simulated agent's stream, with every byte that crosses its line counted.

use crate::fleet::{Node, Place};
use anyhow::{Context as _, Result, bail};
use ethogram_cluster::proto::{
    self, FromAgent, FromCollector, from_agent, from_collector, reports_client::ReportsClient,
};
use hyper_util::rt::TokioIo;
use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    task::{Context, Poll},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    sync::mpsc,
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Streaming, codec::CompressionEncoding, transport::Endpoint};

/// Rows in a batch: what the real sender puts into one, which leaves room for their strings.
const ROWS_MAX: usize = 2_048;

/// What all streams did.
#[derive(Debug, Default)]
pub(crate) struct Traffic {
    pub(crate) bytes_sent: AtomicU64,
    pub(crate) bytes_received: AtomicU64,
    pub(crate) rows: AtomicU64,
    pub(crate) batches: AtomicU64,
}

/// A TCP stream that counts.
struct Counted {
    line: TcpStream,
    traffic: Arc<Traffic>,
}

impl AsyncRead for Counted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.line).poll_read(context, buffer);
        self.traffic
            .bytes_received
            .fetch_add((buffer.filled().len() - before) as u64, Relaxed);
        polled
    }
}

impl AsyncWrite for Counted {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.line).poll_write(context, bytes);
        if let Poll::Ready(Ok(written)) = polled {
            self.traffic.bytes_sent.fetch_add(written as u64, Relaxed);
        }
        polled
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.line).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.line).poll_shutdown(context)
    }
}

/// An agent that reports.
pub(crate) struct Agent {
    pub(crate) node: Node,
    messages: mpsc::Sender<FromAgent>,
    answers: Streaming<FromCollector>,
    traffic: Arc<Traffic>,
}

impl Agent {
    /// Connects and is welcomed.
    pub(crate) async fn connect(
        node: Node,
        collector: SocketAddr,
        traffic: Arc<Traffic>,
    ) -> Result<Self> {
        let counted = traffic.clone();
        let channel = Endpoint::from_shared(format!("http://{collector}"))?
            .connect_with_connector(tower::service_fn(move |_| {
                let traffic = counted.clone();
                async move {
                    let line = TcpStream::connect(collector).await?;
                    line.set_nodelay(true)?;
                    Ok::<_, io::Error>(TokioIo::new(Counted { line, traffic }))
                }
            }))
            .await
            .with_context(|| format!("agent {} cannot connect", node.index))?;
        let mut client = ReportsClient::new(channel).send_compressed(CompressionEncoding::Gzip);
        let (messages, outbound) = mpsc::channel(4);
        let hello = proto::Hello {
            versions: vec![1],
            node: node.name(),
            agent_version: "bench".into(),
            store: format!("store-{}", node.index),
            boot: node.boot(),
            run: "run-1".into(),
            clock_ns: now_ns(),
        };
        messages
            .send(FromAgent {
                message: Some(from_agent::Message::Hello(hello)),
            })
            .await?;
        let mut answers = client
            .report(ReceiverStream::new(outbound))
            .await?
            .into_inner();
        match answers.message().await?.and_then(|answer| answer.message) {
            Some(from_collector::Message::Welcome(_)) => {}
            other => bail!("no Welcome but {other:?}"),
        }
        Ok(Self {
            node,
            messages,
            answers,
            traffic,
        })
    }

    /// Reports rows in batches, each after the one before was acknowledged; how long the
    /// slowest took. A real sender has up to four on their way, and other agents fill the
    /// time here.
    pub(crate) async fn report(&mut self, rows: &[Place]) -> Result<Duration> {
        let mut slowest = Duration::ZERO;
        let last = rows.len().div_ceil(ROWS_MAX).max(1);
        for (number, page) in rows.chunks(ROWS_MAX).enumerate() {
            let batch = self.node.batch(page, now_ns(), number + 1 == last);
            let begun = Instant::now();
            self.send(batch).await?;
            self.acknowledged().await?;
            slowest = slowest.max(begun.elapsed());
            self.traffic.rows.fetch_add(page.len() as u64, Relaxed);
            self.traffic.batches.fetch_add(1, Relaxed);
        }
        Ok(slowest)
    }

    /// Says that there is no news; the answer is to be heard with [`Agent::acknowledged`].
    pub(crate) async fn say_no_news(&mut self) -> Result<()> {
        let batch = self.node.batch(&[], now_ns(), true);
        self.send(batch).await
    }

    async fn send(&mut self, batch: proto::Batch) -> Result<()> {
        let message = Some(from_agent::Message::Batch(batch));
        Ok(self.messages.send(FromAgent { message }).await?)
    }

    /// Waits for the answer to what was sent.
    pub(crate) async fn acknowledged(&mut self) -> Result<()> {
        match self
            .answers
            .message()
            .await?
            .and_then(|answer| answer.message)
        {
            Some(from_collector::Message::Ack(ack)) if ack.refused.is_empty() => Ok(()),
            other => bail!("no Ack but {other:?}"),
        }
    }
}

fn now_ns() -> i64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}
