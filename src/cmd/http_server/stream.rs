//! A connection whose peer must read, and whose heads are counted.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::{Instant, Sleep, sleep},
};

use super::{buffers::Buffers, head::Head};

/// Time for a peer to take an answer, or [`STEP`] of it.
const PATIENCE: Duration = Duration::from_secs(30);

/// The same while the buffers are short, and how often that is looked at.
const LITTLE_PATIENCE: Duration = Duration::from_secs(1);

/// Bytes that renew the patience with a peer.
const STEP: usize = 64 * 1024;

/// Most bytes of one read. After reads that fill its first buffer of 8 KiB, hyper doubles it, and would
/// end with 128 KiB for each connection that sends.
pub const MAX_READ: usize = 8 * 1024 - 1;

/// A connection that fails when its peer does not read what it is sent.
pub struct Stream {
    tcp: TcpStream,
    buffers: Arc<Buffers>,
    head: Arc<Head>,
    stall: Option<Stall>,
}

/// A peer that has left something unread.
struct Stall {
    since: Instant,
    taken: usize,
    timer: Pin<Box<Sleep>>,
}

impl Stream {
    /// # Errors
    /// When the peer has gone already.
    pub fn new(tcp: TcpStream, buffers: Arc<Buffers>, head: Arc<Head>) -> io::Result<Self> {
        // Answers are small and complete; waiting to fill a packet only delays them.
        tcp.set_nodelay(true)?;
        Ok(Self { tcp, buffers, head, stall: None })
    }

    /// Looks at the result of a write of `offered` bytes, and fails when the patience is over.
    fn watch(
        &mut self,
        context: &mut Context<'_>,
        offered: usize,
        written: Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        match (&written, &mut self.stall) {
            (Poll::Ready(Ok(taken)), Some(stall)) => {
                stall.taken += taken;
                if *taken == offered || stall.taken >= STEP {
                    self.stall = None;
                }
                written
            }
            (Poll::Ready(_), _) => written,
            (Poll::Pending, _) => {
                let stall = self.stall.get_or_insert_with(|| Stall {
                    since: Instant::now(),
                    taken: 0,
                    timer: Box::pin(sleep(LITTLE_PATIENCE)),
                });
                loop {
                    ready!(stall.timer.as_mut().poll(context));
                    if stall.since.elapsed() >= PATIENCE || self.buffers.are_short() {
                        // The kernel would go on offering what the peer does not read.
                        let _ = self.tcp.set_zero_linger();
                        let reason = "the peer does not read its answer";
                        return Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, reason)));
                    }
                    stall.timer.as_mut().reset(Instant::now() + LITTLE_PATIENCE);
                }
            }
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let length = buffer.remaining().min(MAX_READ);
        let mut part = ReadBuf::new(buffer.initialize_unfilled_to(length));
        ready!(Pin::new(&mut self.tcp).poll_read(context, &mut part))?;
        let read = part.filled().len();
        buffer.advance(read);
        if self.head.add(read) {
            Poll::Ready(Ok(()))
        } else {
            Poll::Ready(Err(io::Error::other("all heads have reached their part of the buffers")))
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.tcp).poll_write(context, bytes);
        self.watch(context, bytes.len(), written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.tcp).poll_write_vectored(context, slices);
        let offered = slices.iter().map(|slice| slice.len()).sum();
        self.watch(context, offered, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.tcp.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_shutdown(context)
    }
}
