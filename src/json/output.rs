//! Collects pieces of text, and writes them in blocks.

use std::io::{self, Write};

const BLOCK: usize = 8_192;

/// The most bytes of a short piece.
const SHORT: usize = 32;

/// A buffer in front of a writer. A failure is kept until [`Output::finish`].
pub(super) struct Output<W> {
    block: Vec<u8>,
    /// The number of bytes in the block that are waiting to be written.
    length: usize,
    writer: W,
    result: io::Result<()>,
}

impl<W: Write> Output<W> {
    /// Creates a buffer for about `length` bytes.
    pub(super) fn new(writer: W, length: usize) -> Self {
        let block = vec![0; (length + length / 8 + SHORT).min(BLOCK)];
        Self { block, length: 0, writer, result: Ok(()) }
    }

    /// Adds `text[start..end]`.
    #[inline(always)]
    pub(super) fn put_part(&mut self, text: &[u8], start: usize, end: usize) {
        let length = end - start;
        // Copying a fixed number of bytes takes a fraction of the time. The next piece overwrites
        // the bytes that do not belong to this one.
        if length <= SHORT
            && let Some(from) = text[start..].first_chunk::<SHORT>()
            && let Some(to) = self.block[self.length..].first_chunk_mut::<SHORT>()
        {
            *to = *from;
            self.length += length;
        } else {
            self.put_long(&text[start..end]);
        }
    }

    /// Adds a few bytes.
    #[inline(always)]
    pub(super) fn put<const N: usize>(&mut self, bytes: &[u8; N]) {
        match self.block[self.length..].first_chunk_mut() {
            Some(to) => {
                *to = *bytes;
                self.length += N;
            }
            None => self.put_long(bytes),
        }
    }

    /// Adds a piece of any length.
    pub(super) fn put_long(&mut self, bytes: &[u8]) {
        if bytes.len() > self.block.len() - self.length {
            self.flush();
            if bytes.len() > self.block.len() {
                self.write(bytes);
                return;
            }
        }
        self.block[self.length..][..bytes.len()].copy_from_slice(bytes);
        self.length += bytes.len();
    }

    /// Writes what is left. Returns the writer, or the first failure.
    pub(super) fn finish(mut self) -> io::Result<W> {
        self.flush();
        self.result.map(|()| self.writer)
    }

    #[cold]
    fn flush(&mut self) {
        let block = std::mem::take(&mut self.block);
        self.write(&block[..self.length]);
        self.block = block;
        self.length = 0;
    }

    fn write(&mut self, bytes: &[u8]) {
        if self.result.is_ok() {
            self.result = self.writer.write_all(bytes);
        }
    }
}
