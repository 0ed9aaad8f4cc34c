//! The operator's rules for the events of a source.

use std::fmt;

use super::{body::Body, happened::Happened};
use crate::{
    json::{Pointer, Value},
    route::Route,
};

/// The rules of a source. They apply after a delivery is verified.
#[derive(Debug, Clone, Default)]
pub struct Rules {
    pub key: KeyRule,
    /// Values that are left out of the digest of the body.
    pub ignore: Vec<Pointer>,
    /// Types that pass. An empty list lets all types pass.
    pub only: Vec<Glob>,
    /// Types that are left out.
    pub except: Vec<Glob>,
    /// Values that the body must hold.
    pub wanted: Vec<(Pointer, Wanted)>,
    /// The destination of all events, in place of the route byte's choice.
    pub destination: Option<Route>,
    /// A threshold in place of ROUTE_THRESHOLD.
    pub threshold: Option<u16>,
    /// The time of the answer, in place of ANSWER.
    pub answer: Option<Answer>,
}

/// Decides when the sender gets its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Answer {
    /// After the delivery, with the destination's reply.
    #[default]
    Delivered,
    /// As soon as the event is stored. The delivery follows.
    Accepted,
}

impl Answer {
    /// Returns the word of the configuration.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Delivered => "delivered",
            Self::Accepted => "accepted",
        }
    }
}

/// Decides when two deliveries of a source carry the same event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum KeyRule {
    /// The vendor's id must be equal. Events without an id are compared as with `Content`.
    #[default]
    Id,
    /// Type, time and body must be equal.
    Content,
}

impl fmt::Display for KeyRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Id => "id",
            Self::Content => "content",
        })
    }
}

/// A value that a rule requires.
#[derive(Debug, Clone, PartialEq)]
pub enum Wanted {
    Text(String),
    Number(f64),
    Bool(bool),
}

impl fmt::Display for Wanted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => write!(f, "{text:?}"),
            Self::Number(number) => write!(f, "{number}"),
            Self::Bool(is) => write!(f, "{is}"),
        }
    }
}

impl Wanted {
    fn is(&self, value: Value<'_>) -> bool {
        match self {
            Self::Text(text) => value.as_str().is_some_and(|found| found.as_ref() == Ok(text)),
            Self::Number(number) => value.as_f64() == Some(*number),
            Self::Bool(is) => value.as_bool() == Some(*is),
        }
    }
}

/// A pattern of event types. `*` stands for any text: `invoice.*`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Glob(Vec<String>);

impl Glob {
    pub fn new(pattern: &str) -> Self {
        Self(pattern.split('*').map(str::to_owned).collect())
    }

    pub fn matches(&self, text: &str) -> bool {
        let [first, middle @ .., last] = self.0.as_slice() else {
            return self.0.first().is_some_and(|all| all == text);
        };
        let rest = text.strip_prefix(first.as_str());
        let Some(mut rest) = rest.and_then(|rest| rest.strip_suffix(last.as_str())) else {
            return false;
        };
        for piece in middle {
            match rest.split_once(piece.as_str()) {
                Some((_, after)) => rest = after,
                None => return false,
            }
        }
        true
    }
}

impl fmt::Display for Glob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("*"))
    }
}

impl Rules {
    /// Returns whether a delivery passes the rules. A batch is left out only if every event in it
    /// is left out.
    pub fn take(&self, events: &[Happened], body: &Body<'_>) -> bool {
        let holds = |(pointer, wanted): &(Pointer, Wanted)| {
            body.root().and_then(|root| pointer.find(root)).is_some_and(|found| wanted.is(found))
        };
        self.wanted.iter().all(holds) && events.iter().any(|event| self.take_one(event))
    }

    fn take_one(&self, event: &Happened) -> bool {
        // An event without a type matches nothing.
        let matches = |globs: &[Glob]| {
            let matching = |name: &str| globs.iter().any(|glob| glob.matches(name));
            event.event_type.as_deref().is_some_and(matching)
        };
        (self.only.is_empty() || matches(&self.only)) && !matches(&self.except)
    }
}

#[cfg(test)]
mod tests {
    use super::{Body, Glob, Happened, Rules, Wanted};

    #[test]
    fn globs_match_whole_types() {
        for (pattern, text, expected) in [
            ("invoice.*", "invoice.paid", true),
            ("invoice.*", "invoice.", true),
            ("invoice.*", "an.invoice.paid", false),
            ("invoice", "invoice", true),
            ("invoice", "invoices", false),
            ("*", "", true),
            ("*.paid", "invoice.paid", true),
            ("a*b*c", "a-b-b-c", true),
            ("a*b*c", "a-c-b", false),
            ("ab*ba", "aba", false),
            ("a**a", "aa", true),
        ] {
            assert_eq!(Glob::new(pattern).matches(text), expected, "{pattern} {text}");
        }
    }

    #[test]
    fn rules_leave_out_what_they_name() {
        let event = |name: Option<&str>| Happened {
            event_type: name.map(str::to_owned),
            ..Happened::default()
        };
        let body = Body::new(br#"{"livemode":true,"n":1,"s":"x"}"#);
        let invoices = Rules {
            only: vec![Glob::new("invoice.*")],
            except: vec![Glob::new("*.draft")],
            ..Rules::default()
        };
        let take = |rules: &Rules, types: &[Option<&str>]| {
            let events: Vec<_> = types.iter().map(|name| event(*name)).collect();
            rules.take(&events, &body)
        };
        assert!(take(&invoices, &[Some("invoice.paid")]));
        assert!(!take(&invoices, &[Some("invoice.draft")]));
        assert!(!take(&invoices, &[Some("charge.paid")]));
        assert!(!take(&invoices, &[None]));
        assert!(take(&Rules { only: vec![], ..invoices.clone() }, &[None]));
        // One event that passes is enough for the whole batch.
        assert!(take(&invoices, &[Some("charge.paid"), Some("invoice.paid")]));
        for (pointer, wanted, expected) in [
            ("/livemode", Wanted::Bool(true), true),
            ("/livemode", Wanted::Bool(false), false),
            ("/livemode", Wanted::Text("true".into()), false),
            ("/n", Wanted::Number(1.0), true),
            ("/s", Wanted::Text("x".into()), true),
            ("/absent", Wanted::Bool(false), false),
        ] {
            let wanted = vec![(pointer.parse().unwrap(), wanted)];
            let rules = Rules { wanted, ..Rules::default() };
            assert_eq!(take(&rules, &[None]), expected, "{pointer}");
        }
    }
}
