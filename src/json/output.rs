//! Collects pieces of text, and writes them in blocks.

use std::io::{self, Write};

const BLOCK: usize = 8_192;

/// A buffer in front of a writer. A failure is kept until [`Output::finish`].
pub(super) struct Output<W> {
    block: Vec<u8>,
    writer: W,
    result: io::Result<()>,
}

impl<W: Write> Output<W> {
    /// Creates a buffer for about `length` bytes.
    pub(super) fn new(writer: W, length: usize) -> Self {
        Self { block: Vec::with_capacity(length.min(BLOCK)), writer, result: Ok(()) }
    }

    pub(super) fn put(&mut self, bytes: &[u8]) {
        if bytes.len() > self.block.capacity() - self.block.len() {
            self.flush();
            if bytes.len() > self.block.capacity() {
                self.write(bytes);
                return;
            }
        }
        self.block.extend_from_slice(bytes);
    }

    /// Writes what is left. Returns the writer, or the first failure.
    pub(super) fn finish(mut self) -> io::Result<W> {
        self.flush();
        self.result.map(|()| self.writer)
    }

    #[cold]
    fn flush(&mut self) {
        let block = std::mem::take(&mut self.block);
        self.write(&block);
        self.block = block;
        self.block.clear();
    }

    fn write(&mut self, bytes: &[u8]) {
        if self.result.is_ok() {
            self.result = self.writer.write_all(bytes);
        }
    }
}
