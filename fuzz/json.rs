//! Compares the router's JSON reader with a second reader. Both accept the same texts, and print
//! the same canonical form. Reading and printing a canonical form again does not change it.

use webhook_router::json::Document;

use super::reader;

/// Checks one input, and panics if it finds a fault.
pub fn check(text: &[u8]) {
    let document = Document::parse(text).ok();
    let second = reader::read(text);
    assert_eq!(document.is_some(), second.is_some(), "only one of the readers accepts it");
    let (Some(document), Some(second)) = (document, second) else { return };
    let canonical = |document: &Document<'_>| {
        let mut out = Vec::new();
        document.write_canonical(&mut out).unwrap();
        String::from_utf8(out).unwrap()
    };
    let (digest, printed) = (document.digest(), canonical(&document));
    assert_eq!(printed, reader::canonical(&second));
    // Python prints numbers beyond the doubles as a word that is not JSON.
    if let Ok(again) = Document::parse(printed.as_bytes()) {
        assert_eq!(canonical(&again), printed);
        assert_eq!(again.digest(), digest);
    } else {
        assert!(printed.contains("Infinity"), "{printed}");
    }
}
