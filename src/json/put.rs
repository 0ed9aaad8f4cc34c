//! Writes a value at a place of a JSON text. Every other byte stays as it is.

use super::{Document, Kind, Pointer, Value};

impl Pointer {
    /// Returns the text with `json` at the place. `json` replaces an existing scalar. If there is
    /// no value at the place, `json` becomes a new member of the innermost existing value, which
    /// must be an object that is not empty. Returns `None` if the text is not JSON, or `json`
    /// cannot be put there.
    pub fn put(&self, text: &[u8], json: &str) -> Option<Vec<u8>> {
        let document = Document::parse(text).ok()?;
        let mut value = document.root();
        for (depth, step) in self.steps().iter().enumerate() {
            let Some(inner) = value.step(step) else {
                let at = value.first_key()?;
                let member = member(&self.steps()[depth..], json)?;
                return Some([&text[..at], member.as_bytes(), b",", &text[at..]].concat());
            };
            value = inner;
        }
        let (start, end) = value.span()?;
        Some([&text[..start], json.as_bytes(), &text[end..]].concat())
    }
}

/// Writes a member with the first name. Its value holds the next member, and the last one holds
/// `json`.
fn member(names: &[String], json: &str) -> Option<String> {
    let (innermost, outer) = names.split_last()?;
    let named = |name: &String| serde_json::to_string(name).ok();
    let innermost = format!("{}:{json}", named(innermost)?);
    outer
        .iter()
        .rev()
        .try_fold(innermost, |inner, name| Some(format!("{}:{{{inner}}}", named(name)?)))
}

impl Value<'_> {
    /// Returns the start of an object's first key, with its quote.
    fn first_key(self) -> Option<usize> {
        let first = self.index + 1;
        let is_filled = self.is_object() && first < self.end();
        is_filled.then(|| self.document.nodes[first as usize].start as usize)
    }

    /// Returns the start and the end of a scalar, with its quotes.
    fn span(self) -> Option<(usize, usize)> {
        let node = self.node();
        let is_scalar = !matches!(node.kind, Kind::Array | Kind::Object);
        is_scalar.then_some((node.start as usize, node.end as usize))
    }
}

#[cfg(test)]
mod tests {
    use super::Pointer;

    #[test]
    fn a_value_is_put_in_place_and_all_else_stays() {
        let put = |text: &str, pointer: &str, json: &str| {
            let put = pointer.parse::<Pointer>().unwrap().put(text.as_bytes(), json);
            put.map(|bytes| String::from_utf8(bytes).unwrap())
        };
        for (text, pointer, expected) in [
            (r#"{ "a" : "old", "b":1.50 }"#, "/a", r#"{ "a" : "x", "b":1.50 }"#),
            (r#"{"b":1.50,"a":null}"#, "/b", r#"{"b":"x","a":null}"#),
            (r#"{"a":["é\n",{"b":true}]}"#, "/a/1/b", r#"{"a":["é\n",{"b":"x"}]}"#),
            (r#"{ "b":2}"#, "/a", r#"{ "a":"x","b":2}"#),
            (r#"{"b":2}"#, "/a/c~1d/e", r#"{"a":{"c/d":{"e":"x"}},"b":2}"#),
            (r#"{"b":{"c":2}}"#, "/b/a", r#"{"b":{"a":"x","c":2}}"#),
        ] {
            assert_eq!(put(text, pointer, "\"x\"").as_deref(), Some(expected), "{text} {pointer}");
        }
        for (text, pointer) in
            [("{}", "/a"), ("[1]", "/1"), (r#"{"a":{"b":1}}"#, "/a"), ("{", "/a"), ("1", "/a")]
        {
            assert_eq!(put(text, pointer, "1"), None, "{text} {pointer}");
        }
    }
}
