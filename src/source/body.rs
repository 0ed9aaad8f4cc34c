//! The body of a vendor's delivery: JSON, or bytes of any other kind.

use sha2::{Digest as _, Sha256};

use crate::{
    hex_digits::hex,
    json::{Document, Pointer, Value},
};

/// A body, parsed once.
pub struct Body<'a> {
    bytes: &'a [u8],
    document: Option<Document<'a>>,
}

impl<'a> Body<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, document: Document::parse(bytes).ok() }
    }

    /// Returns the outermost value, or `None` if the body is not JSON.
    pub fn root(&self) -> Option<Value<'_>> {
        self.document.as_ref().map(Document::root)
    }

    /// Returns a SHA-256 in hex: of the canonical JSON without some of its values, or of the bytes
    /// if the body is not JSON.
    pub fn digest(&self, left_out: &[Pointer]) -> String {
        match &self.document {
            Some(document) => hex(&document.digest_without(left_out)),
            None => hex(&Sha256::digest(self.bytes)),
        }
    }
}
