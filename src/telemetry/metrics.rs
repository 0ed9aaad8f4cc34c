//! Counts the metrics for Prometheus: counters and durations, by destination, source, vendor and
//! outcome.

use std::{
    collections::HashSet,
    fmt,
    sync::{LazyLock, Mutex, PoisonError, atomic::AtomicU64},
    time::Duration,
};

use prometheus_client::{
    encoding::{
        EncodeLabelSet, EncodeLabelValue, LabelValueEncoder,
        text::{encode_eof, encode_registry},
    },
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::Registry,
};

use super::{
    backlog::{Destination, Undelivered},
    handled::Members,
};
use crate::route::Route;

/// The prefix of every name.
const PREFIX: &str = "webhook_router";

/// Most vendors that have a label of their own. The others share one. Names come from payloads, and
/// each name costs memory.
const MAX_VENDORS: usize = 50;

/// Upper bounds of the histograms, in seconds.
const SECONDS: [f64; 12] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0];

/// The metrics of this process.
pub(super) static METRICS: LazyLock<Metrics> = LazyLock::new(Metrics::new);

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    destination: Route,
    /// Empty for an envelope. The number of sources is small, because an operator configures them.
    source: String,
    vendor: String,
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Copies {
    destination: Route,
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Status {
    status: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Sender {
    source: String,
    vendor: String,
}

impl EncodeLabelValue for Route {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> fmt::Result {
        self.as_str().encode(encoder)
    }
}

pub(super) struct Metrics {
    registry: Registry,
    deliveries: Family<Labels, Counter>,
    attempts: Family<Destination, Counter>,
    bytes: Family<Destination, Counter>,
    seconds: Family<Labels, Histogram>,
    store_seconds: Histogram,
    destination_seconds: Family<Destination, Histogram>,
    refused: Family<Status, Counter>,
    filtered: Family<Sender, Counter>,
    unsettled: Counter,
    panics: Counter,
    copies: Family<Copies, Counter>,
    overdue: Family<Destination, Gauge<f64, AtomicU64>>,
    waiting_for_room: Family<Destination, Gauge>,
    room_seconds: Family<Destination, Histogram>,
    no_room: Family<Destination, Counter>,
}

impl Metrics {
    fn new() -> Self {
        let mut metrics = Self {
            registry: Registry::with_prefix(PREFIX),
            deliveries: Family::default(),
            attempts: Family::default(),
            bytes: Family::default(),
            seconds: Family::new_with_constructor(|| Histogram::new(SECONDS)),
            store_seconds: Histogram::new(SECONDS),
            destination_seconds: Family::new_with_constructor(|| Histogram::new(SECONDS)),
            refused: Family::default(),
            filtered: Family::default(),
            unsettled: Counter::default(),
            panics: Counter::default(),
            copies: Family::default(),
            overdue: Family::default(),
            waiting_for_room: Family::default(),
            room_seconds: Family::new_with_constructor(|| Histogram::new(SECONDS)),
            no_room: Family::default(),
        };
        let registry = &mut metrics.registry;
        registry.register("deliveries", "Deliveries of events", metrics.deliveries.clone());
        registry.register("attempts", "Attempts at a destination", metrics.attempts.clone());
        registry.register("bytes", "Bytes of the events' bodies", metrics.bytes.clone());
        registry.register(
            "delivery_seconds",
            "Time from the start of a delivery to its result",
            metrics.seconds.clone(),
        );
        let store = metrics.store_seconds.clone();
        registry.register("store_seconds", "Time that a delivery spent in the store", store);
        let destination = metrics.destination_seconds.clone();
        registry.register(
            "destination_seconds",
            "Time that a forwarded delivery spent in the destination",
            destination,
        );
        let refused = metrics.refused.clone();
        registry.register(
            "refused",
            "Requests that were refused before the store was used",
            refused,
        );
        let filtered = metrics.filtered.clone();
        registry.register("filtered", "Events that the rules of a source leave out", filtered);
        let unsettled = metrics.unsettled.clone();
        registry.register("unsettled", "Results that could not be stored", unsettled);
        registry.register(
            "inbox_overdue_seconds",
            "Time for which the first due event of a destination's inbox has been due",
            metrics.overdue.clone(),
        );
        registry.register(
            "waiting_for_room",
            "Attempts that wait now, because a destination has limits",
            metrics.waiting_for_room.clone(),
        );
        registry.register(
            "room_seconds",
            "Time that an attempt waited for room at a destination, if it had to wait",
            metrics.room_seconds.clone(),
        );
        let no_room = metrics.no_room.clone();
        registry.register("no_room", "Attempts that found no room in time", no_room);
        registry.register("copies", "Copies of events for mirrors", metrics.copies.clone());
        registry.register("panics", "Panics, each of which is a bug", metrics.panics.clone());
        metrics
    }

    pub(super) fn delivered(&self, line: &Members<'_>) {
        let labels = Labels {
            destination: line.destination,
            source: line.source.unwrap_or_default().to_owned(),
            vendor: vendor(line.vendor),
            outcome: line.outcome,
        };
        let destination = Destination { destination: line.destination };
        self.deliveries.get_or_create(&labels).inc();
        self.seconds.get_or_create(&labels).observe(line.milliseconds.as_seconds());
        self.store_seconds.observe(line.store_milliseconds.as_seconds());
        self.bytes.get_or_create(&destination).inc_by(line.bytes as u64);
        if line.attempts > 0 {
            self.attempts.get_or_create(&destination).inc_by(line.attempts.into());
            let seconds = line.destination_milliseconds.as_seconds();
            self.destination_seconds.get_or_create(&destination).observe(seconds);
        }
        if !line.settled {
            self.unsettled.inc();
        }
    }

    pub(super) fn overdue(&self, destination: Route, overdue: Duration) {
        self.overdue.get_or_create(&Destination { destination }).set(overdue.as_secs_f64());
    }

    pub(super) fn copied(&self, destination: Route, outcome: &'static str) {
        self.copies.get_or_create(&Copies { destination, outcome }).inc();
    }

    pub(super) fn waits_for_room(&self, destination: Route, count: i64) {
        self.waiting_for_room.get_or_create(&Destination { destination }).inc_by(count);
    }

    pub(super) fn waited_for_room(&self, destination: Route, waited: Duration) {
        let seconds = waited.as_secs_f64();
        self.room_seconds.get_or_create(&Destination { destination }).observe(seconds);
    }

    pub(super) fn no_room(&self, destination: Route) {
        self.no_room.get_or_create(&Destination { destination }).inc();
    }

    pub(super) fn panicked(&self) {
        self.panics.inc();
    }

    pub(super) fn refused(&self, status: u16) {
        self.refused.get_or_create(&Status { status }).inc();
    }

    pub(super) fn filtered(&self, source: Option<&str>, name: &str) {
        let (source, vendor) = (source.unwrap_or_default().to_owned(), vendor(name));
        self.filtered.get_or_create(&Sender { source, vendor }).inc();
    }

    /// Returns the metrics in the text format of OpenMetrics, with the events that are not delivered.
    pub(super) fn text(&self, undelivered: Undelivered) -> String {
        let (mut text, mut gauges) = (String::new(), Registry::with_prefix(PREFIX));
        undelivered.register(&mut gauges);
        // Writing to a string cannot fail.
        let _ = encode_registry(&mut text, &self.registry)
            .and_then(|()| encode_registry(&mut text, &gauges))
            .and_then(|()| encode_eof(&mut text));
        text
    }
}

/// Returns the vendor as a label: in lower case and cut. Returns `other` when there are too many
/// vendors, or when the name is not printable ASCII.
fn vendor(name: &str) -> String {
    static KNOWN: LazyLock<Mutex<HashSet<String>>> = LazyLock::new(Mutex::default);
    let name: String = name.to_lowercase().chars().take(64).collect();
    let is_printable = name.chars().all(|one| one.is_ascii_graphic() || one == ' ');
    if !is_printable || name.trim().is_empty() {
        return "other".into();
    }
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    if known.contains(&name) {
        return name;
    }
    if known.len() >= MAX_VENDORS {
        return "other".into();
    }
    known.insert(name.clone());
    name
}
