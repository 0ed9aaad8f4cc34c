//! The events of a function's fronts: every event is answered in the shape of its front.

use serde_json::Value;
use webhook_router::{
    cmd::fronts::Front,
    delivery::Reply,
    plan::{Planned, plan},
};

use super::deliveries::{INTAKE, now};

/// Checks one input, and panics if it finds a fault.
pub fn check(event: &str) {
    let Some(front) = Front::of(event) else { return };
    let reply = match front.delivery(event) {
        Err(error) => Reply::text(http::StatusCode::BAD_REQUEST, error.to_string()),
        Ok(delivery) => match plan(&delivery, &INTAKE, None, now()) {
            // The answer of a destination may hold any bytes.
            Ok(Planned::Deliver(_) | Planned::Confirm { .. }) => Reply {
                body: delivery.body,
                headers: delivery.headers,
                ..Reply::text(http::StatusCode::OK, "")
            },
            Ok(Planned::Handshake(reply) | Planned::Filtered { reply, .. }) => reply,
            Err(error) => error.reply(),
        },
    };
    let status = reply.status.as_u16();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let answer = runtime.block_on(front.answer(reply));
    let answer = serde_json::to_value(answer).unwrap();
    assert_eq!(answer["statusCode"], Value::from(status));
}
