//! The events of a delivery, as its payload reports them.

use super::{
    body::Body,
    description::{Fields, Place, Unit},
};
use crate::{delivery::Delivery, json::Value, timestamp::Timestamp};

/// One of the events of a delivery. A value is absent if the payload lacks it or it cannot be read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Happened {
    pub event_type: Option<String>,
    pub created_at: Option<Timestamp>,
    /// The vendor's name for the event.
    pub id: Option<String>,
}

/// Reads the events of a delivery: one event, or the events of a batch.
pub(super) fn read(fields: &Fields, delivery: &Delivery, body: &Body<'_>) -> Vec<Happened> {
    let root = body.root();
    let batch = fields.each.as_ref().and_then(|each| each.find(root?)?.elements());
    match batch {
        Some(items) if !items.is_empty() => {
            let of_batch = fields.of_batch.clone().map(Place::Pointer);
            let of_batch = of_batch.and_then(|place| time(&place, fields.unit, delivery, root));
            let read = |item| {
                let one = read_one(fields, delivery, Some(item));
                Happened { created_at: one.created_at.or(of_batch), ..one }
            };
            items.into_iter().map(read).collect()
        }
        _ => vec![read_one(fields, delivery, root)],
    }
}

fn read_one(fields: &Fields, delivery: &Delivery, value: Option<Value<'_>>) -> Happened {
    let Fields { event_type, created_at, unit, id, .. } = fields;
    Happened {
        event_type: event_type.iter().find_map(|joined| joined.text(delivery, value)),
        created_at: created_at.iter().find_map(|place| time(place, *unit, delivery, value)),
        id: id.iter().find_map(|joined| joined.text(delivery, value)),
    }
}

fn time(
    place: &Place,
    unit: Unit,
    delivery: &Delivery,
    value: Option<Value<'_>>,
) -> Option<Timestamp> {
    let text = place.text(delivery, value)?;
    let micros = match unit {
        Unit::Text | Unit::TextInUtc => return Timestamp::parse(&text).ok(),
        Unit::Seconds => 1_000_000.0,
        Unit::Milliseconds => 1_000.0,
    };
    // A vendor may use both formats: Stripe's newer events have a text where older ones have
    // seconds.
    match text.parse::<i64>() {
        Ok(whole) => Timestamp::from_micros(whole.checked_mul(micros as i64)?),
        Err(_) => match text.parse::<f64>() {
            Ok(number) if number.is_finite() => Timestamp::from_micros((number * micros) as i64),
            _ => Timestamp::parse(&text).ok(),
        },
    }
}
