//! A connection that counts the bytes of heads, and closes if its peer does not read.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf, Take},
    net::TcpStream,
    time::{Instant, Sleep, sleep},
};

use super::{buffers::Buffers, head::Head};

/// Time for a peer to read an answer, or [`STEP`] bytes of it.
const PATIENCE: Duration = Duration::from_secs(30);

/// Time for a slow peer while the buffers are more than half full. The connection checks them at
/// the same interval.
const LITTLE_PATIENCE: Duration = Duration::from_secs(1);

/// A peer that reads this many bytes gets [`PATIENCE`] again.
const STEP: usize = 64 * 1024;

/// Most bytes of one read. hyper doubles its first buffer of 8 KiB after reads that fill it.
/// Without this limit, each sending connection would end with a buffer of 128 KiB.
pub const MAX_READ: usize = 8 * 1024 - 1;

/// A connection that fails if its peer does not read its answer.
pub struct Stream {
    /// The connection, which reads at most [`MAX_READ`] bytes at once.
    tcp: Take<TcpStream>,
    buffers: Arc<Buffers>,
    head: Arc<Head>,
    stall: Option<Stall>,
}

/// The state of a peer that has left data unread.
struct Stall {
    since: Instant,
    taken: usize,
    timer: Pin<Box<Sleep>>,
}

impl Stream {
    /// Wraps a TCP connection.
    ///
    /// # Errors
    /// Fails if the peer has already closed the connection.
    pub fn new(tcp: TcpStream, buffers: Arc<Buffers>, head: Arc<Head>) -> io::Result<Self> {
        // Answers are small and complete. Waiting to fill a packet would only delay them.
        tcp.set_nodelay(true)?;
        Ok(Self { tcp: tcp.take(0), buffers, head, stall: None })
    }

    /// Returns the connection for writing.
    fn writer(&mut self) -> Pin<&mut TcpStream> {
        Pin::new(self.tcp.get_mut())
    }

    /// Checks the result of a write of `offered` bytes. Fails once the peer has not read for too
    /// long.
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
                        // Without this, the kernel would keep trying to send the unread data.
                        let _ = self.tcp.get_ref().set_zero_linger();
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
        let before = buffer.filled().len();
        self.tcp.set_limit(MAX_READ as u64);
        ready!(Pin::new(&mut self.tcp).poll_read(context, buffer))?;
        let read = buffer.filled().len() - before;
        if self.head.add(read) {
            Poll::Ready(Ok(()))
        } else {
            Poll::Ready(Err(io::Error::other(
                "the heads of all requests together have reached their limit",
            )))
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = self.writer().poll_write(context, bytes);
        self.watch(context, bytes.len(), written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = self.writer().poll_write_vectored(context, slices);
        let offered = slices.iter().map(|slice| slice.len()).sum();
        self.watch(context, offered, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.tcp.get_ref().is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.writer().poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.writer().poll_shutdown(context)
    }
}
