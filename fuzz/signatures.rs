//! Each vendor's headers and bodies. No delivery ends in a panic, whether its signature is genuine or
//! not. The router accepts what it signs itself, whatever the body and the query hold.

use http::{HeaderMap, Method, StatusCode};
use webhook_router::{
    delivery::Delivery,
    error::Error,
    plan::{Planned, needs, plan},
    source::Signing,
};

use super::deliveries::{INTAKE, now, read};

/// Checks one input, and panics if it finds a fault.
pub fn check(text: &[u8]) {
    let Some(delivery) = read(text) else { return };
    decided(&delivery);
    let Ok(source) = INTAKE.sources.at(&delivery.path) else { return };
    let Some(secret) = source.secrets.first() else { return };
    let signing = Signing { secret, key: None, url: None, now: now() };
    let unsigned = Delivery { method: Method::POST, headers: HeaderMap::new(), ..delivery };
    if unsigned.body.is_empty() {
        return;
    }
    if let Ok(signed) = source.sign(&unsigned, &signing) {
        let refusal = decided(&signed);
        assert!(!matches!(refusal, Some(Error::Signature(_))), "{}: {signed:?}", source.name);
    }
}

/// Plans a delivery as the router does, and returns the refusal.
fn decided(delivery: &Delivery) -> Option<Error> {
    let _fetch = needs(delivery, &INTAKE, now());
    match plan(delivery, &INTAKE, None, now()) {
        Ok(Planned::Deliver(plan)) => {
            assert!(plan.source_name().is_none_or(|name| delivery.path.ends_with(name)));
            None
        }
        Ok(Planned::Handshake(reply) | Planned::Filtered { reply, .. }) => {
            assert!(reply.status.is_success(), "{reply:?}");
            None
        }
        Ok(Planned::Confirm { .. }) => None,
        Err(error) => {
            // Without a vendor's certificate or key, the sender is asked to come again.
            let status = error.reply().status;
            assert!(
                status.is_client_error() || status == StatusCode::SERVICE_UNAVAILABLE,
                "{error}"
            );
            Some(error)
        }
    }
}
