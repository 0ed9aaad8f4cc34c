//! Finds keys that operators write in full, or shorten to their first digits.

use anyhow::Context as _;
use chrono::Utc;

use crate::{key::Key, store::Store};

/// Smallest number of hex digits that a key may be shortened to.
const MIN_DIGITS: usize = 8;

/// Returns the key that a text stands for, or `None` if no event has a key that begins with it. A
/// whole key is returned as it is, whether an event has it or not.
pub(super) async fn find(store: &dyn Store, text: &str) -> anyhow::Result<Option<Key>> {
    let digits = text.strip_prefix(Key::PREFIX).unwrap_or(text).to_ascii_lowercase();
    if let Ok(key) = format!("{}{digits}", Key::PREFIX).parse() {
        return Ok(Some(key));
    }
    let is_short_key = (MIN_DIGITS..64).contains(&digits.len())
        && digits.bytes().all(|digit| digit.is_ascii_hexdigit());
    anyhow::ensure!(
        is_short_key,
        "`{text}` is not a key: give {}<64 hex digits>, or the first {MIN_DIGITS} digits or more",
        Key::PREFIX
    );
    let found = store.find(&digits, Utc::now()).await.context("the store does not answer")?;
    let found = found.context("this store cannot find a key by its first digits: give all 64")?;
    match found[..] {
        [] => Ok(None),
        [key] => Ok(Some(key)),
        _ => anyhow::bail!("several keys begin with {digits}: give more digits"),
    }
}
