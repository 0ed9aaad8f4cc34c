//! The mirrors that get copies of a part of the events.

use std::collections::BTreeMap;

use url::Url;

use super::{
    targets::{HttpTarget, Invocation, LambdaTarget, Payload, Place, Targets},
    vars::Vars,
};
use crate::route::Route;

const URL: &str = "MIRROR_URL";
const FUNCTION: &str = "MIRROR_FUNCTION";
const PERCENT: &str = "MIRROR_PERCENT";

/// The mirrors, and the part of the events that they get.
#[derive(Debug, Clone)]
pub struct Mirroring {
    /// The number of events of each 100 that are copied.
    pub percent: u8,
    /// The mirror of the destinations that have no mirror of their own.
    pub common: Option<Place>,
    /// The mirrors of single destinations.
    pub own: BTreeMap<Route, Place>,
}

impl Vars<'_> {
    /// Reads the mirrors. Returns `None` if no event is copied.
    pub(super) fn mirroring(&mut self, _targets: &Targets) -> Option<Mirroring> {
        let percent = self.number(PERCENT, 0..=100) as u8;
        let (url, function) = (self.mirror_url(), self.mirror_function());
        if self.text(URL).is_some() && self.text(FUNCTION).is_some() {
            self.problem(FUNCTION, format!("must not be set together with {URL}"));
        }
        let common = url.or(function);
        let own = BTreeMap::new();
        let is_used = percent > 0 && (common.is_some() || !own.is_empty());
        is_used.then_some(Mirroring { percent, common, own })
    }

    fn mirror_url(&mut self) -> Option<Place> {
        let url = Url::parse(&self.text(URL)?).ok().filter(super::targets::is_allowed);
        if url.is_none() {
            self.problem(URL, "must be an https:// URL (http:// is allowed on loopback)");
        }
        Some(mirror_at(url?))
    }

    fn mirror_function(&mut self) -> Option<Place> {
        let function = self.text(FUNCTION)?;
        self.check_function(FUNCTION, &function, false);
        let payload = match self.text("AWS_TARGET_PAYLOAD").as_deref() {
            Some("request") => Payload::Request,
            _ => Payload::Body,
        };
        let invocation = Invocation::RequestResponse;
        Some(Place::Lambda(LambdaTarget { function, role_arn: None, invocation, payload }))
    }
}

/// Returns the mirror at a URL. It trusts only public CAs, and gets no credentials but those in the
/// URL.
fn mirror_at(url: Url) -> Place {
    Place::Http(HttpTarget { url, ca: None, client_certificate: None })
}
