//! `plan-shift`: counts the events that another table of destinations would move.

use std::{
    collections::{BTreeMap, HashSet},
    io::Write as _,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
};

use anyhow::Context as _;
use bytes::Bytes;
use chrono::Utc;
use clap::Args;
use http::{HeaderMap, Method};
use serde::Serialize;

use super::{arguments::read_file, variables};
use crate::{
    config::{self, Intake, Unsigned},
    delivery::Delivery,
    key::Key,
    plan::{Planned, plan},
    route::Route,
    source::{Source, envelope, vendor},
};

#[derive(Args)]
#[command(
    after_help = "FILE is TOML, as DESTINATIONS or SOURCES_FILE have it: [destinations.NAME] tables, \
    or the line ROUTE_THRESHOLD = 128. All other settings, such as ROUTING_SECRET and the sources, \
    come from the variables. A body file whose name ends in .jsonl or .ndjson, and standard input \
    (-), hold one body per line. Any other file holds one body. Signatures are not verified.\n\n\
    An event that has a record keeps its destination, so only events that are new move."
)]
pub struct Options {
    /// File with the shares that are in use now.
    #[arg(long, value_name = "FILE")]
    from: PathBuf,
    /// File with the shares after the change.
    #[arg(long, value_name = "FILE")]
    to: PathBuf,
    /// Source whose payloads the bodies are: the name of a configured source or of a built-in vendor
    /// [default: bodies are envelopes].
    #[arg(long, value_name = "NAME")]
    source: Option<String>,
    /// Print a JSON object.
    #[arg(long)]
    json: bool,
    /// Files that hold bodies of events.
    #[arg(required = true, value_name = "BODIES")]
    bodies: Vec<PathBuf>,
}

/// The counts of events.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
struct Shift {
    /// The number of events. Several bodies of one event count once.
    events: u32,
    moved: u32,
    /// The number of bodies that carry no event for a destination: refused, filtered, or a handshake.
    left_out: u32,
    destinations: BTreeMap<Route, Counts>,
    moves: Vec<Move>,
}

/// The events of a destination.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
struct Counts {
    before: u32,
    after: u32,
}

/// The events that go from one destination to another.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Move {
    from: Route,
    to: Route,
    events: u32,
}

/// Counts the events that would move, by destination.
///
/// # Errors
/// Fails if the configuration or a file cannot be used.
pub async fn run(options: Options) -> anyhow::Result<ExitCode> {
    let mut intake = Intake::from_vars(variables().await?)?;
    let path = prepare(&mut intake, options.source.as_deref())?;
    let from = with_shares(&intake, &options.from)?;
    let to = with_shares(&intake, &options.to)?;
    let mut counter = Counter::new(&from, &to);
    for file in &options.bodies {
        let bytes = Bytes::from(read_file(file)?);
        for body in bodies(file, &bytes) {
            counter.count(&delivery(&path, body));
        }
    }
    let mut out = std::io::stdout().lock();
    if options.json {
        writeln!(out, "{}", serde_json::to_string(&counter.shift)?)?;
    } else {
        write!(out, "{}", text(&counter.shift))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Switches the verification of signatures off, and returns the path that the bodies are for.
fn prepare(intake: &mut Intake, source: Option<&str>) -> anyhow::Result<String> {
    intake.unsigned = Unsigned::FromAnyone;
    intake.envelope_secrets.clear();
    let Some(name) = source else { return Ok(envelope::PATH.to_owned()) };
    let source = match (intake.sources.get(name), vendor(name)) {
        (Some(source), _) => Source::clone(source),
        (None, Some(vendor)) => Source::new(name, Arc::clone(vendor)),
        (None, None) => {
            anyhow::bail!("{name} is neither a configured source nor a built-in vendor")
        }
    };
    let source = source.explained();
    let path = source.path();
    intake.sources.insert(source);
    Ok(path)
}

/// Returns the same settings with the shares of a file.
fn with_shares(intake: &Intake, file: &Path) -> anyhow::Result<Intake> {
    let text = String::from_utf8(read_file(file)?);
    let text = text.with_context(|| format!("{} is not UTF-8", file.display()))?;
    let shares = config::shares(&text).map_err(|problems| {
        let lines: Vec<_> = problems.iter().map(|one| format!("\n  {one}")).collect();
        anyhow::anyhow!("{} cannot be used:{}", file.display(), lines.concat())
    })?;
    Ok(Intake { shares, ..intake.clone() })
}

/// Splits the bytes of a file into bodies.
fn bodies(file: &Path, bytes: &Bytes) -> Vec<Bytes> {
    let extension = file.extension().and_then(|extension| extension.to_str());
    if file != Path::new("-") && !matches!(extension, Some("jsonl" | "ndjson")) {
        return vec![bytes.clone()];
    }
    let lines = bytes.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii);
    lines.filter(|line| !line.is_empty()).map(|line| bytes.slice_ref(line)).collect()
}

fn delivery(path: &str, body: Bytes) -> Delivery {
    let (method, path, headers) = (Method::POST, path.to_owned(), HeaderMap::new());
    Delivery { method, path, query: None, headers, body }
}

/// Compares two plans of each event.
struct Counter<'a> {
    from: &'a Intake,
    to: &'a Intake,
    /// The keys of the events that were counted.
    seen: HashSet<Key>,
    shift: Shift,
}

impl<'a> Counter<'a> {
    fn new(from: &'a Intake, to: &'a Intake) -> Self {
        let mut shift = Shift::default();
        for route in [from.shares.routes(), to.shares.routes()].concat() {
            shift.destinations.entry(route).or_default();
        }
        Self { from, to, seen: HashSet::new(), shift }
    }

    fn count(&mut self, delivery: &Delivery) {
        let now = Utc::now();
        let planned = |intake| plan(delivery, intake, None, now).ok().and_then(Planned::plan);
        let (Some(before), Some(after)) = (planned(self.from), planned(self.to)) else {
            self.shift.left_out += 1;
            return;
        };
        if !self.seen.insert(before.key) {
            return;
        }
        let (from, to) = (before.route, after.route);
        self.shift.events += 1;
        self.shift.destinations.entry(from).or_default().before += 1;
        self.shift.destinations.entry(to).or_default().after += 1;
        if from != to {
            self.shift.moved += 1;
            let known = self.shift.moves.iter_mut().find(|one| (one.from, one.to) == (from, to));
            match known {
                Some(known) => known.events += 1,
                None => self.shift.moves.push(Move { from, to, events: 1 }),
            }
        }
    }
}

/// Returns the counts as lines for a person.
fn text(shift: &Shift) -> String {
    let Shift { events, moved, left_out, destinations, moves } = shift;
    let share = |count: u32| f64::from(count) * 100.0 / f64::from(*events).max(1.0);
    let mut lines = vec![format!("{:<32} {:>10} {:>10}", "destination", "before", "after")];
    for (route, Counts { before, after }) in destinations {
        lines.push(format!("{route:<32} {before:>10} {after:>10}"));
    }
    lines.push(format!("{moved} of {events} events move ({:.1}%)", share(*moved)));
    let mut moves: Vec<_> = moves.iter().collect();
    moves.sort_by_key(|one| (one.from, one.to));
    for Move { from, to, events } in moves {
        lines.push(format!("  {from} -> {to}: {events}"));
    }
    if *left_out > 0 {
        lines.push(format!("{left_out} bodies left out: refused, filtered, or without an event"));
    }
    lines.push("Events that have a record keep their destination.".into());
    lines.iter().map(|line| format!("{line}\n")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{route::Shares, testing::lookup};

    fn shifted(from: u16, to: u16, bodies: &[&str]) -> Shift {
        let mut intake = Intake::from_vars(lookup(&[])).unwrap();
        let path = prepare(&mut intake, None).unwrap();
        let [from, to] = [from, to].map(|threshold| {
            let shares = Shares::by_threshold(threshold);
            Intake { shares, ..intake.clone() }
        });
        let mut counter = Counter::new(&from, &to);
        for body in bodies {
            counter.count(&delivery(&path, Bytes::copy_from_slice(body.as_bytes())));
        }
        counter.shift
    }

    #[test]
    fn each_event_is_counted_once() {
        let one = r#"{"vendor":"v","event_type":"e","created_at":"2026-05-06","n":1}"#;
        let two = r#"{"vendor":"v","event_type":"e","created_at":"2026-05-06","n":2}"#;
        let again = one.replace(',', " , ");
        let shift = shifted(0, 256, &[one, two, &again, "{}"]);
        assert_eq!((shift.events, shift.moved, shift.left_out), (2, 2, 1));
        let moves = [Move { from: Route::AWS, to: Route::GCP, events: 2 }];
        assert_eq!(shift.moves, moves);
        assert_eq!(shift.destinations[&Route::AWS], Counts { before: 2, after: 0 });
        assert_eq!(shift.destinations[&Route::GCP], Counts { before: 0, after: 2 });
        assert!(text(&shift).contains("2 of 2 events move (100.0%)\n  aws -> gcp: 2\n1 bodies"));
        assert_eq!(shifted(7, 7, &[one, two]).moved, 0);
    }

    #[test]
    fn a_file_holds_one_body_or_one_per_line() {
        let bytes = Bytes::from_static(b"{\"a\":\n1}\r\n\n{}\n");
        for (file, count) in
            [("one.json", 1), ("one", 1), ("x.jsonl", 3), ("x.ndjson", 3), ("-", 3)]
        {
            assert_eq!(bodies(Path::new(file), &bytes).len(), count, "{file}");
        }
    }
}
