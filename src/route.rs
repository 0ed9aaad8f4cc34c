//! The route of an event: the name of its destination, and the share of the route bytes that each
//! destination has.

use std::{fmt, ops::RangeInclusive, str::FromStr, sync::Arc};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

/// Longest name of a destination, in bytes. A name is a part of the keys of lists in the stores, and
/// a label of metrics.
pub const MAX_NAME_BYTES: usize = 32;

/// The name of a destination.
///
/// A name has 1 to [`MAX_NAME_BYTES`] characters of a-z, 0-9, `-` and `_`, and begins with a letter
/// or a digit. The rest of the array is zero.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Route([u8; MAX_NAME_BYTES]);

impl Route {
    /// The Cloud Run service of GCP_TARGET_URL.
    pub const GCP: Self = Self::of(b"gcp");
    /// The Lambda of AWS_TARGET_FUNCTION.
    pub const AWS: Self = Self::of(b"aws");

    const fn of(name: &[u8]) -> Self {
        let (mut bytes, mut at) = ([0; MAX_NAME_BYTES], 0);
        while at < name.len() {
            bytes[at] = name[at];
            at += 1;
        }
        Self(bytes)
    }

    /// Returns the text for the store and for `X-Webhook-Destination`.
    pub fn as_str(&self) -> &str {
        let length = self.0.iter().position(|byte| *byte == 0).unwrap_or(MAX_NAME_BYTES);
        // A name is ASCII.
        str::from_utf8(&self.0[..length]).unwrap_or_default()
    }

    /// Returns the destination of a route byte if a threshold divides the events among `gcp` and
    /// `aws`.
    pub fn by_threshold(byte: u8, threshold: u16) -> Self {
        if u16::from(byte) < threshold { Self::GCP } else { Self::AWS }
    }
}

/// A text that cannot be the name of a destination.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "must be 1 to {MAX_NAME_BYTES} characters of a-z, 0-9, `-` and `_`, and begin with a letter or a \
     digit"
)]
pub struct NotARoute;

impl FromStr for Route {
    type Err = NotARoute;

    fn from_str(text: &str) -> Result<Self, NotARoute> {
        let is_first = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        let is_allowed = |byte: u8| is_first(byte) || matches!(byte, b'-' | b'_');
        let is_name = text.len() <= MAX_NAME_BYTES
            && text.bytes().next().is_some_and(is_first)
            && text.bytes().all(is_allowed);
        is_name.then(|| Self::of(text.as_bytes())).ok_or(NotARoute)
    }
}

impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl fmt::Debug for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for Route {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for Route {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
        text.parse().map_err(|error| D::Error::custom(format!("a destination's name {error}")))
    }
}

/// The destination of each route byte.
#[derive(Clone, PartialEq, Eq)]
pub struct Shares(Arc<[Route; 256]>);

impl Shares {
    pub fn new(routes: [Route; 256]) -> Self {
        Self(Arc::new(routes))
    }

    /// Creates the table of `gcp` and `aws`: the bytes below the threshold belong to `gcp`.
    pub fn by_threshold(threshold: u16) -> Self {
        Self::new(std::array::from_fn(|byte| Route::by_threshold(byte as u8, threshold)))
    }

    /// Returns the destination of a route byte.
    pub fn of(&self, byte: u8) -> Route {
        self.0[usize::from(byte)]
    }

    /// Returns the destinations that have bytes, in the order of their first bytes.
    pub fn routes(&self) -> Vec<Route> {
        let mut routes = Vec::new();
        for route in self.0.iter() {
            if !routes.contains(route) {
                routes.push(*route);
            }
        }
        routes
    }

    /// Returns the number of bytes of a destination.
    pub fn count(&self, route: Route) -> usize {
        self.0.iter().filter(|one| **one == route).count()
    }

    /// Describes the bytes of a destination as the configuration has them, for example
    /// `0-9,20-29`.
    pub fn bytes(&self, route: Route) -> String {
        ranges((0..=255).filter(|byte| self.of(*byte) == route))
    }
}

/// Describes bytes in ascending order as ranges: `0-9,20-29`.
pub fn ranges(bytes: impl IntoIterator<Item = u8>) -> String {
    let mut ranges: Vec<RangeInclusive<u8>> = Vec::new();
    for byte in bytes {
        match ranges.last_mut() {
            Some(last) if byte > 0 && *last.end() == byte - 1 => *last = *last.start()..=byte,
            _ => ranges.push(byte..=byte),
        }
    }
    let texts = ranges.iter().map(|range| match (range.start(), range.end()) {
        (first, last) if first == last => first.to_string(),
        (first, last) => format!("{first}-{last}"),
    });
    texts.collect::<Vec<_>>().join(",")
}

impl fmt::Debug for Shares {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let routes = self.routes();
        f.debug_map().entries(routes.iter().map(|route| (route, self.bytes(*route)))).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_has_few_characters_and_a_limited_length() {
        let longest = "x".repeat(MAX_NAME_BYTES);
        for name in ["gcp", "a", "0", "eu-west_1", "7-", &longest] {
            let route: Route = name.parse().unwrap();
            assert_eq!((route.as_str(), route.to_string()), (name, name.to_owned()));
            assert_eq!(format!("{route:>40}").len(), 40);
            let json = serde_json::to_string(&route).unwrap();
            assert_eq!(json, format!("\"{name}\""));
            assert_eq!(serde_json::from_str::<Route>(&json).unwrap(), route);
        }
        let too_long = "x".repeat(MAX_NAME_BYTES + 1);
        for wrong in ["", "-a", "_a", "EU", "a.b", "a b", "a:b", "é", "a\0", &too_long] {
            assert_eq!(wrong.parse::<Route>(), Err(NotARoute), "{wrong}");
        }
        assert_eq!("gcp".parse(), Ok(Route::GCP));
        assert_eq!("aws".parse(), Ok(Route::AWS));
    }

    #[test]
    fn a_threshold_is_a_table_of_two() {
        for (threshold, gcp, aws) in
            [(0, "", "0-255"), (1, "0", "1-255"), (128, "0-127", "128-255"), (256, "0-255", "")]
        {
            let shares = Shares::by_threshold(threshold);
            assert_eq!(
                (shares.bytes(Route::GCP), shares.bytes(Route::AWS)),
                (gcp.into(), aws.into())
            );
            assert_eq!(shares.count(Route::GCP), usize::from(threshold));
        }
    }

    #[test]
    fn the_bytes_of_a_destination_are_told_as_ranges() {
        let mut routes = [Route::AWS; 256];
        for byte in [0, 1, 2, 9, 254, 255] {
            routes[byte] = Route::GCP;
        }
        let shares = Shares::new(routes);
        assert_eq!(shares.bytes(Route::GCP), "0-2,9,254-255");
        assert_eq!(shares.bytes(Route::AWS), "3-8,10-253");
        assert_eq!(shares.routes(), [Route::GCP, Route::AWS]);
        assert_eq!((shares.of(9), shares.of(10)), (Route::GCP, Route::AWS));
    }
}
