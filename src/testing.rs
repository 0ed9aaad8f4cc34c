//! Values that the unit tests share.

use http::{HeaderMap, HeaderName, HeaderValue, Method};

use crate::{
    delivery::Delivery,
    event::{Event, Identity},
    key::{Key, RoutingSecret},
    plan::Plan,
    route::Route,
};

/// Looks up variables. The last one with a name counts.
pub fn lookup(vars: &[(&str, &str)]) -> impl Fn(&str) -> Option<String> + use<> {
    let vars: Vec<_> =
        vars.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
    move |wanted| {
        let found = vars.iter().rfind(|(name, _)| name == wanted);
        found.map(|(_, value)| value.clone())
    }
}

pub fn delivery(path: &str, headers: &[(&'static str, &str)], body: &str) -> Delivery {
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        map.append(HeaderName::from_static(name), HeaderValue::try_from(*value).unwrap());
    }
    let (method, body) = (Method::POST, body.to_owned().into());
    Delivery { method, path: path.into(), query: None, headers: map, body }
}

/// Returns the plan of an event with this digest, which goes to Cloud Run.
pub fn plan(identity: Identity, digest: &str) -> Plan {
    let event = Event {
        vendor: "acme".into(),
        source: None,
        event_type: "paid".into(),
        created_at: None,
        digest: digest.into(),
        identity,
    };
    let key = Key::derive(&RoutingSecret::new("of-the-tests"), &event.logical());
    Plan::kept(event, key, Route::GCP, None)
}
