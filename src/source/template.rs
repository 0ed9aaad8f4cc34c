//! The bytes that a signature covers, as a template: `{timestamp}.{body}`.

use std::{borrow::Cow, str::FromStr};

use http::HeaderName;

use crate::{
    delivery::Delivery,
    json::{Document, Pointer},
};

/// The bytes that a signature covers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template(Vec<Part>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(String),
    Body,
    Timestamp,
    Url,
    Method,
    Header(HeaderName),
    /// A value of the body. An absent value counts as empty.
    Pointer(Pointer),
}

/// Reasons why a text is not a template.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotATemplate {
    #[error(
        "must contain {{body}} exactly once, or at least one value of the body such as {{/id}}: \
         nothing else protects the body"
    )]
    NoBody,
    #[error("holds `{{{0}}}`, which is not a JSON pointer as in {{/data/id}}")]
    Pointer(String),
    #[error("holds `{{` without `}}`")]
    Open,
    #[error(
        "holds `{{{0}}}`, which is not a placeholder: use {{body}}, {{timestamp}}, {{url}}, \
         {{method}}, {{header:NAME}} or a JSON pointer such as {{/data/id}}"
    )]
    Unknown(String),
}

impl FromStr for Template {
    type Err = NotATemplate;

    fn from_str(text: &str) -> Result<Self, NotATemplate> {
        let (mut parts, mut rest) = (Vec::new(), text);
        while let Some((before, after)) = rest.split_once('{') {
            let (name, after) = after.split_once('}').ok_or(NotATemplate::Open)?;
            if !before.is_empty() {
                parts.push(Part::Text(before.into()));
            }
            let unknown = || NotATemplate::Unknown(name.into());
            parts.push(match name {
                "body" => Part::Body,
                "timestamp" => Part::Timestamp,
                "url" => Part::Url,
                "method" => Part::Method,
                _ if name.starts_with('/') => {
                    let pointer = name.parse().map_err(|_| NotATemplate::Pointer(name.into()));
                    Part::Pointer(pointer?)
                }
                _ => {
                    let header = name.strip_prefix("header:").ok_or_else(unknown)?;
                    Part::Header(header.parse().map_err(|_| unknown())?)
                }
            });
            rest = after;
        }
        if !rest.is_empty() {
            parts.push(Part::Text(rest.into()));
        }
        // A second `{body}` would require a second hash of the body. A signature inside the body
        // cannot cover the whole body, but it can cover values.
        let has_values = parts.iter().any(|part| matches!(part, Part::Pointer(_)));
        match parts.iter().filter(|part| **part == Part::Body).count() {
            1 => Ok(Self(parts)),
            0 if has_values => Ok(Self(parts)),
            _ => Err(NotATemplate::NoBody),
        }
    }
}

impl Default for Template {
    fn default() -> Self {
        Self(vec![Part::Body])
    }
}

impl Template {
    pub fn needs_url(&self) -> bool {
        self.0.contains(&Part::Url)
    }

    /// Returns whether the whole body is signed.
    pub fn has_body(&self) -> bool {
        self.0.contains(&Part::Body)
    }

    pub fn needs_timestamp(&self) -> bool {
        self.0.contains(&Part::Timestamp)
    }

    /// Returns the headers that are signed.
    pub fn headers(&self) -> impl Iterator<Item = &HeaderName> {
        self.0.iter().filter_map(|part| match part {
            Part::Header(name) => Some(name),
            _ => None,
        })
    }

    /// Returns the signed bytes of a delivery, in pieces, or `None` if the delivery lacks a piece,
    /// or a value of the body is an object or an array.
    pub fn pieces<'a>(
        &'a self,
        delivery: &'a Delivery,
        timestamp: Option<&'a str>,
        url: Option<&'a str>,
    ) -> Option<Vec<Cow<'a, [u8]>>> {
        let has_values = self.0.iter().any(|part| matches!(part, Part::Pointer(_)));
        let document = if has_values { Some(Document::parse(&delivery.body).ok()?) } else { None };
        let value = |pointer: &Pointer| {
            let Some(value) = pointer.find(document.as_ref()?.root()) else {
                return Some(String::new());
            };
            // No signature covers the content of an object or an array.
            if value.is_object() || value.elements().is_some() {
                return None;
            }
            let text = value.as_text().or_else(|| value.as_bool().map(|is| is.to_string()));
            Some(text.unwrap_or_default())
        };
        let pieces = self.0.iter().map(|part| {
            let piece = match part {
                Part::Text(text) => text.as_bytes(),
                Part::Body => &delivery.body[..],
                Part::Timestamp => timestamp?.as_bytes(),
                Part::Url => url?.as_bytes(),
                Part::Method => delivery.method.as_str().as_bytes(),
                Part::Header(name) => delivery.single_header(name)?.as_bytes(),
                Part::Pointer(pointer) => {
                    return value(pointer).map(|text| Cow::Owned(text.into_bytes()));
                }
            };
            Some(Cow::Borrowed(piece))
        });
        pieces.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::{NotATemplate, Template};

    #[test]
    fn templates_name_what_is_wrong_with_them() {
        for good in
            ["{body}", "v0:{timestamp}:{body}", "{method}{url}{body}{header:X-Id}", "{/a}:{/b/0}"]
        {
            assert!(good.parse::<Template>().is_ok(), "{good}");
        }
        for (text, wrong) in [
            ("", NotATemplate::NoBody),
            ("{timestamp}", NotATemplate::NoBody),
            ("{body}{body}", NotATemplate::NoBody),
            ("{/a~2}", NotATemplate::Pointer("/a~2".into())),
            ("{body", NotATemplate::Open),
            ("{boddy}", NotATemplate::Unknown("boddy".into())),
            ("{header:}{body}", NotATemplate::Unknown("header:".into())),
        ] {
            assert_eq!(text.parse::<Template>(), Err(wrong), "{text}");
        }
    }
}
