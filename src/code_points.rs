//! Tables of code points.

/// Returns whether one of these ranges holds a character. A range is its first and last code point.
/// The ranges are in order.
pub fn contain(ranges: &[(u32, u32)], char: char) -> bool {
    let code = u32::from(char);
    let at = ranges.partition_point(|(_, last)| *last < code);
    ranges.get(at).is_some_and(|(first, _)| *first <= code)
}
