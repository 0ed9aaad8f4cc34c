//! JSON pointers (RFC 6901).

use std::{fmt, str::FromStr};

use super::Value;

/// The path from the outermost value to another: `/data/object/id`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pointer(Vec<String>);

/// A text that is not a JSON pointer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be a JSON pointer that begins with `/`, as in `/data/id`")]
pub struct NotAPointer;

impl Pointer {
    /// Returns the pointer to the outermost value.
    pub fn root() -> Self {
        Self(Vec::new())
    }

    /// Returns the value at the pointer.
    pub fn find<'d>(&self, root: Value<'d>) -> Option<Value<'d>> {
        self.0.iter().try_fold(root, |value, step| value.step(step))
    }

    pub(super) fn steps(&self) -> &[String] {
        &self.0
    }
}

impl<'d> Value<'d> {
    /// Returns the member of that name, or the element at that index.
    pub(super) fn step(self, step: &str) -> Option<Self> {
        match self.elements() {
            Some(elements) => elements.get(index(step)?).copied(),
            None => self.get(step),
        }
    }
}

/// Reads an array index, which has no leading zeros.
fn index(step: &str) -> Option<usize> {
    let is_canonical = step == "0" || !step.starts_with(['0', '+']);
    is_canonical.then(|| step.parse().ok()).flatten()
}

impl FromStr for Pointer {
    type Err = NotAPointer;

    fn from_str(text: &str) -> Result<Self, NotAPointer> {
        let steps = text.strip_prefix('/').ok_or(NotAPointer)?.split('/');
        let steps = steps.map(|step| {
            if !step.contains('~') {
                return Ok(step.to_owned());
            }
            let escapes = step.split('~').skip(1);
            let is_valid = escapes.clone().all(|rest| rest.starts_with(['0', '1']));
            is_valid.then(|| step.replace("~1", "/").replace("~0", "~")).ok_or(NotAPointer)
        });
        steps.collect::<Result<_, _>>().map(Self)
    }
}

impl fmt::Display for Pointer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut steps = self.0.iter();
        steps.try_for_each(|step| write!(f, "/{}", step.replace('~', "~0").replace('/', "~1")))
    }
}

#[cfg(test)]
mod tests {
    use super::Pointer;
    use crate::json::Document;

    #[test]
    fn pointers_lead_to_values() {
        let text = br#"{"a":{"b/c":[10,{"~":"x"}],"":true},"n":[]}"#;
        let document = Document::parse(text).unwrap();
        let at = |pointer: &str| {
            let pointer: Pointer = pointer.parse().unwrap();
            let found = pointer.find(document.root())?;
            found.as_text().or_else(|| found.as_bool().map(|is| is.to_string()))
        };
        assert_eq!(at("/a/b~1c/0").as_deref(), Some("10"));
        assert_eq!(at("/a/b~1c/1/~0").as_deref(), Some("x"));
        assert_eq!(at("/a/").as_deref(), Some("true"));
        for nowhere in ["/b", "/a/b", "/a/b~1c/2", "/a/b~1c/00", "/a/b~1c/-", "/n/0", "/a/b~1c/0/x"]
        {
            assert_eq!(at(nowhere), None, "{nowhere}");
        }
        for wrong in ["", "a", "a/b", "/a~", "/a~2"] {
            assert!(wrong.parse::<Pointer>().is_err(), "{wrong}");
        }
        assert_eq!("/a~1b/~0".parse::<Pointer>().unwrap().to_string(), "/a~1b/~0");
    }

    #[test]
    fn a_digest_leaves_out_what_it_is_told_to() {
        let digest = |text: &str, left_out: &[&str]| {
            let left_out: Vec<Pointer> = left_out.iter().map(|one| one.parse().unwrap()).collect();
            Document::parse(text.as_bytes()).unwrap().digest_without(&left_out)
        };
        let whole = r#"{"a":1,"b":[1,2,{"c":3}],"d":4}"#;
        assert_eq!(digest(whole, &["/x", "/b/7"]), digest(whole, &[]));
        assert_eq!(digest(whole, &["/a"]), digest(r#"{"b":[1,2,{"c":3}],"d":4}"#, &[]));
        assert_eq!(digest(whole, &["/d", "/b/2/c"]), digest(r#"{"a":1,"b":[1,2,{}]}"#, &[]));
        assert_eq!(digest(whole, &["/b/0"]), digest(r#"{"a":1,"b":[2,{"c":3}],"d":4}"#, &[]));
    }
}
