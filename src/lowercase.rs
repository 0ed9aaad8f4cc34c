//! Lower case exactly as the Python router's `str.lower()` produces it.

use crate::code_points::contain;

/// Code points added after Unicode 14 (the version of CPython 3.11) that have, or affect, a mapping
/// to lower case. They stay unchanged: otherwise a newer compiler, with a newer Unicode version,
/// would give an event another key.
#[rustfmt::skip]
const AFTER_UNICODE_14: [(u32, u32); 50] = [
    (0x897, 0x897), (0xECE, 0xECE), (0x1ACF, 0x1ADD), (0x1AE0, 0x1AEB), (0x1C89, 0x1C8A),
    (0xA7CB, 0xA7CF), (0xA7D2, 0xA7D2), (0xA7D4, 0xA7D4), (0xA7DA, 0xA7DC), (0xA7F1, 0xA7F1),
    (0x10D4E, 0x10D4E), (0x10D50, 0x10D65), (0x10D69, 0x10D6D), (0x10D6F, 0x10D85),
    (0x10EC5, 0x10EC5), (0x10EFA, 0x10EFF), (0x11241, 0x11241), (0x113BB, 0x113C0),
    (0x113CE, 0x113CE), (0x113D0, 0x113D0), (0x113D2, 0x113D2), (0x113E1, 0x113E2),
    (0x11B60, 0x11B60), (0x11B62, 0x11B64), (0x11B66, 0x11B66), (0x11DD9, 0x11DD9),
    (0x11F00, 0x11F01), (0x11F36, 0x11F3A), (0x11F40, 0x11F40), (0x11F42, 0x11F42),
    (0x11F5A, 0x11F5A), (0x13439, 0x13440), (0x13447, 0x13455), (0x1611E, 0x16129),
    (0x1612D, 0x1612F), (0x16D40, 0x16D42), (0x16D6B, 0x16D6C), (0x16EA0, 0x16EB8),
    (0x16EBB, 0x16ED3), (0x16FF2, 0x16FF3), (0x1DF25, 0x1DF2A), (0x1E030, 0x1E06D),
    (0x1E08F, 0x1E08F), (0x1E4EB, 0x1E4EF), (0x1E5EE, 0x1E5EF), (0x1E6E3, 0x1E6E3),
    (0x1E6E6, 0x1E6E6), (0x1E6EE, 0x1E6EF), (0x1E6F5, 0x1E6F5), (0x1E6FF, 0x1E6FF),
];

/// Returns the full lower-case form, including a final sigma, by the rules of Unicode 14.
pub fn python_lower(text: &str) -> String {
    if text.is_ascii() {
        return text.to_ascii_lowercase();
    }
    // In Unicode 14, such a code point is not a letter, and it ends a word as a space does.
    text.split_inclusive(is_later)
        .map(|word| match word.char_indices().next_back() {
            Some((at, last)) if is_later(last) => lower(&word[..at]) + &word[at..],
            _ => lower(word),
        })
        .collect()
}

/// Returns the lower-case form of a text without code points that are newer than Unicode 14.
///
/// Unicode has since changed the class of two of the older ones. They have no other case, but they
/// decide whether a capital sigma near them ends a word. So while the text is lowered, each is
/// replaced by an ASCII character of its former class.
fn lower(text: &str) -> String {
    let stand_in = |char| match char {
        // A lower-case letter in Unicode 14.
        '\u{295}' => 'x',
        // In Unicode 14, it is ignored when the end of a word is looked for, as a point is.
        '\u{1171E}' => '.',
        _ => char,
    };
    if text.chars().all(|char| stand_in(char) == char) {
        return text.to_lowercase();
    }
    let lowered = text.chars().map(stand_in).collect::<String>().to_lowercase();
    let mut lowered = lowered.chars();
    let restored = |char| {
        let counterpart = stand_in(char);
        // The lower case of a letter can have several characters.
        let own: String = lowered.by_ref().take(counterpart.to_lowercase().count()).collect();
        if counterpart == char { own } else { char.into() }
    };
    text.chars().map(restored).collect()
}

fn is_later(char: char) -> bool {
    contain(&AFTER_UNICODE_14, char)
}

#[cfg(test)]
mod tests {
    use super::python_lower;

    #[test]
    fn letters_become_lower_case_as_in_python() {
        // The expected texts are those of CPython 3.11's `str.lower()`.
        for (text, lower) in [
            ("Stripe-1 ÄÖ", "stripe-1 äö"),
            ("İ", "i\u{307}"),
            ("ΟΔΟΣ", "οδος"),
            ("ΟΔΟΣ ΟΔΟΣ!", "οδος οδος!"),
            ("Σ", "σ"),
            ("ẞ", "ß"),
            ("ʕΣ ΣʕΣ İΣʕ", "ʕς σʕς i\u{307}σʕ"),
            ("ΑΣ\u{1171E} ΑΣ\u{1171E}Α", "ας\u{1171E} ασ\u{1171E}α"),
        ] {
            assert_eq!(python_lower(text), lower, "{text}");
        }
    }

    #[test]
    fn letters_that_are_newer_than_unicode_14_stay_and_end_a_word() {
        // U+10D50 and U+1C89 are capital letters since Unicode 16.
        for later in ["\u{10D50}", "\u{10D65}", "\u{1C89}", "\u{A7CB}"] {
            assert_eq!(python_lower(later), later);
            assert_eq!(python_lower(&format!("ΟΔΟΣ{later}Α")), format!("οδος{later}α"));
        }
        // The neighbours of a range are letters of Unicode 14, or none.
        assert_eq!(python_lower("\u{A7CA}\u{A7C9}"), "\u{A7CA}\u{A7CA}");
    }
}
