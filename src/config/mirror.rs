//! The mirrors that get copies of a part of the events.

use std::collections::BTreeMap;

use url::Url;

use super::{
    targets::{
        HttpTarget, Invocation, LambdaTarget, Payload, Place, THIS_FUNCTION, Targets,
        check_function,
    },
    urls::http_url,
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

impl Mirroring {
    /// Returns the common mirror with the setting that an operator changes to correct it.
    pub fn common(&self) -> Option<(&str, &Place)> {
        self.common.as_ref().map(|place| match place {
            Place::Http(_) => (URL, place),
            Place::Lambda(_) => (FUNCTION, place),
        })
    }
}

impl Vars<'_> {
    /// Reads the mirrors. Returns `None` if no event is copied.
    pub(super) fn mirroring(&mut self, targets: &Targets) -> Option<Mirroring> {
        let percent = self.number(PERCENT, 0..=100) as u8;
        let (url, function) = (self.mirror_url(), self.mirror_function());
        if self.text(URL).is_some() && self.text(FUNCTION).is_some() {
            self.problem(FUNCTION, format!("must not be set together with {URL}"));
        }
        let common = url.or(function);
        let own = targets.iter().filter_map(|target| {
            let mirror = target.mirror.clone()?;
            self.warn_of_credentials(&target.setting, &mirror.url);
            Some((target.name, Place::Http(mirror)))
        });
        let own: BTreeMap<_, _> = own.collect();
        let is_used = percent > 0 && (common.is_some() || !own.is_empty());
        is_used.then_some(Mirroring { percent, common, own })
    }

    fn mirror_url(&mut self) -> Option<Place> {
        let url = http_url(&self.text(URL)?);
        let url = url.map_err(|remedy| self.problem(URL, remedy)).ok()?;
        self.warn_of_credentials(URL, &url);
        Some(Place::Http(mirror_at(url)))
    }

    fn mirror_function(&mut self) -> Option<Place> {
        let function = self.text(FUNCTION)?;
        if let Err(remedy) = check_function(&function) {
            self.problem(FUNCTION, remedy);
        }
        if self.is_this_function(&function) {
            self.problem(FUNCTION, THIS_FUNCTION);
        }
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
pub(super) fn mirror_at(url: Url) -> HttpTarget {
    HttpTarget { url, ca: None, client_certificate: None, id_token: None }
}
