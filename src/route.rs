//! The route of an event: `gcp` or `aws`.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// The choice between the two destinations of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Route {
    /// A Cloud Run service, over HTTPS.
    Gcp,
    /// The processor Lambda, through the Invoke API.
    Aws,
}

impl Route {
    /// All routes.
    pub const ALL: [Self; 2] = [Self::Gcp, Self::Aws];

    /// Returns the text for the store and for `X-Webhook-Destination`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Gcp => "gcp",
            Self::Aws => "aws",
        }
    }
}

/// A text that is neither `gcp` nor `aws`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("must be gcp or aws")]
pub struct NotARoute;

impl FromStr for Route {
    type Err = NotARoute;

    fn from_str(text: &str) -> Result<Self, NotARoute> {
        let route = Self::ALL.into_iter().find(|route| route.as_str() == text);
        route.ok_or(NotARoute)
    }
}

impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
