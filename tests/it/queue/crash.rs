//! The state after a crash of the release build at every exchange with its services, when messages and a
//! schedule wake the function. An instance is killed before a service gets a request, and after a service
//! has answered it. The vendor comes again until it hears 200, and never after that. Another instance
//! takes over.
//!
//! Every accepted event arrives. It arrives a second time after a success only if the store did not learn
//! of the success. docs/guarantees.md says the same.

use std::{
    path::Path,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use bytes::Bytes;
use chrono::Utc;
use http::StatusCode;
use tokio::task::JoinSet;
use webhook_router::{plan::Plan, route::Route, store::State};

use super::{SCHEDULE, VISIBILITY, instance};
use crate::{
    boundary::{Boundary, Cut},
    emulator::{Artefact, Emulator, SECRET},
    event_source::{DUE, Faults, Function, Queue, Wakers, poll},
    inbox::{
        crash::{NOISE, Place},
        event, is_delivered, record_in,
    },
    servers::{DynamoDbLocal, Moto},
    shared,
    support::{Answer, Received, Sink, delivery, intake, ok, planned, status},
};

/// The time after which a message counts as lost in these tests.
const LOST: Duration = Duration::from_millis(500);

/// The time after which the test itself sends a message for an event.
const NUDGE: Duration = Duration::from_secs(5);

/// Trials at the same time. A trial mostly waits for the end of a lease.
const AT_ONCE: usize = 6;

/// The lives of events. An instance is killed at every exchange of each of them, except those that an
/// earlier life has as well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Life {
    /// The first attempt succeeds.
    Delivered,
    /// The first attempt fails, and the second one succeeds.
    TriedAgain,
    /// The destination refuses the event. Later, it would take it.
    Refused,
    /// A run of the schedule finds two events without messages.
    Found,
}
use Life::{Delivered, Found, Refused, TriedAgain};

impl Life {
    /// Returns the answers of the destination, one after the other.
    fn answers(self) -> Vec<Answer> {
        match self {
            Delivered | Found => vec![ok("done")],
            TriedAgain => vec![status(StatusCode::BAD_GATEWAY, "no"), ok("done")],
            Refused => vec![status(StatusCode::UNPROCESSABLE_ENTITY, "never"), ok("done")],
        }
    }

    /// Returns the number of attempts that another attempt follows.
    fn failures(self) -> usize {
        usize::from(self == TriedAgain)
    }

    /// Returns the services of an event's requests, without repetitions.
    fn way(self) -> Vec<&'static str> {
        match self {
            Delivered | Refused => vec!["store", "queue", "store", "destination", "store"],
            TriedAgain => {
                let attempt = ["store", "destination", "store"];
                [&["store", "queue"], &attempt[..], &["queue"], &attempt[..]].concat()
            }
            Found => vec!["store", "destination", "store", "queue"],
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_redis_every_accepted_event_arrives_as_often_as_promised() {
    let mut places = Vec::new();
    for _ in 0..AT_ONCE {
        places.push(Place::at(&shared::redis_database()).await);
    }
    at_every_exchange(places, &[Delivered, TriedAgain, Refused, Found], Course::both_sides).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_dynamodb_every_accepted_event_arrives_as_often_as_promised() {
    let dynamodb = DynamoDbLocal::start().await;
    let places = Place::in_tables(&dynamodb, AT_ONCE).await;
    at_every_exchange(places, &[Delivered, TriedAgain, Refused], Course::every_state).await;
}

async fn at_every_exchange(places: Vec<Place>, lives: &[Life], cuts_of: fn(&Course) -> Vec<Cut>) {
    let (moto, artefact) = (Arc::new(Moto::start()), Artefact::router());
    let function: Arc<Path> = artefact.bootstrap().into();
    let mut cuts = Vec::new();
    for life in lives {
        let trial = Trial { function: &function, moto: &moto, place: &places[0], life: *life };
        // A request that is repeated, because the machine is busy, is not a step of its own.
        let courses = [trial.run(None).await, trial.run(None).await];
        let course = courses.into_iter().min_by_key(|course| course.passed.len()).unwrap();
        let mut way = course.passed.clone();
        way.dedup();
        assert!(way.starts_with(&life.way()), "{life:?}: {:?}", course.passed);
        let first = |service| course.passed.iter().position(|passed| *passed == service).unwrap();
        let is_its_own = |cut: &Cut| match life {
            Delivered => true,
            // Delivered has the acceptance.
            TriedAgain | Refused => cut.index() >= first("destination"),
            // What comes after that does not change the events.
            Found => cut.index() <= first("queue"),
        };
        let of_life = cuts_of(&course).into_iter().filter(is_its_own);
        cuts.extend(of_life.map(|cut| (*life, cut)));
    }
    let (count, cuts) = (cuts.len(), Arc::new(Mutex::new(cuts)));
    let mut trials = JoinSet::new();
    for place in places {
        let (cuts, moto, function) = (Arc::clone(&cuts), Arc::clone(&moto), Arc::clone(&function));
        trials.spawn(async move {
            loop {
                let next = cuts.lock().unwrap().pop();
                let Some((life, cut)) = next else { break };
                let trial = Trial { function: &function, moto: &moto, place: &place, life };
                // An exchange that takes too long is given up, and has no answer at which to kill.
                let mut tries = 1;
                while !trial.run(Some(cut)).await.is_cut {
                    assert!(tries < 5, "{life:?} has no {cut:?}");
                    tries += 1;
                }
            }
        });
    }
    trials.join_all().await;
    println!("{count} kills; lost: 0; sent again after a success that the store knew of: 0");
}

/// An event in the life of which an instance may be killed.
struct Trial<'a> {
    function: &'a Path,
    moto: &'a Arc<Moto>,
    place: &'a Place,
    life: Life,
}

/// The course of a trial until the instance was killed or had nothing more to do.
struct Course {
    /// The services of its requests, in order.
    passed: Vec<&'static str>,
    /// The number of requests before its answer to each invocation.
    answered: Vec<usize>,
    is_cut: bool,
}

impl Course {
    /// Returns the kills on both sides of each service.
    fn both_sides(&self) -> Vec<Cut> {
        (0..self.passed.len()).flat_map(|index| [Cut::Before(index), Cut::After(index)]).collect()
    }

    /// Returns the kills on one side of each service, and on the other side where the instance answers an
    /// invocation before its next request. Elsewhere, a kill after an answer leaves the same behind as one
    /// before the next request.
    fn every_state(&self) -> Vec<Cut> {
        let is_its_own = |cut: &Cut| match cut {
            Cut::Before(_) => true,
            Cut::After(index) => self.answered.contains(&(index + 1)),
        };
        self.both_sides().into_iter().filter(is_its_own).collect()
    }
}

impl Trial<'_> {
    async fn run(&self, cut: Option<Cut>) -> Course {
        let (place, life, what) = (self.place, self.life, format!("{:?}, {cut:?}", self.life));
        let sink = Sink::start().await;
        sink.answers_in_turn(life.answers());
        let name: String = what.chars().filter(char::is_ascii_alphanumeric).collect();
        let queue = Arc::new(Queue::on(self.moto, &name, 2 * VISIBILITY, 10).await);
        let count = if life == Found { 2 } else { 1 };
        let bodies = (0..count)
            .map(|number| self.body(&format!("{what}, {number}, {}", rand::random::<u64>())));
        let events: Vec<_> = bodies.map(|body| (plan_of(&body), body)).collect();

        let boundary = Boundary::with_cut(cut);
        let dying = self.dying(&boundary, &sink, &queue).await;
        let heir = self.start(&sink.url, &self.store(), &queue, &[]);
        let function = Function::with_heir(dying, heir, || {});
        let dying = function.emulator(0);
        let killed = Arc::clone(&dying);
        boundary.kills(move || killed.kill_function());

        let mut answered = Vec::new();
        if life == Found {
            for (plan, body) in &events {
                let (delivery, now) = (delivery(body.clone()), Utc::now());
                place.store.accept(plan, &delivery, now, now, now).await.unwrap();
            }
            function.invoke(DUE.into()).await;
            answered.push(boundary.passed().len());
        } else {
            let is_heard = vendor(&function, &events[0].1, &what).await;
            // SQS may answer late, after the instance has answered the vendor without it.
            assert!(is_heard || boundary.is_cut(), "{what}: {:?}", boundary.passed());
            answered.push(boundary.passed().len());
        }
        let is_settled = async |plan: &Plan| {
            let record = place.store.get(&plan.key, Utc::now()).await.unwrap();
            record.is_some_and(|record| record.accepted.is_none())
        };
        let mut nudged = Instant::now();
        while life != Found && !function.has_heir_taken_over() && !is_settled(&events[0].0).await {
            poll(&queue, &function, Faults::default()).await;
            if nudged.elapsed() > NUDGE {
                // On a busy machine, SQS may not have taken the message in time.
                queue.send(&events[0].0.key.to_string()).await;
                nudged = Instant::now();
            }
            answered.push(boundary.passed().len());
        }
        let is_cut = boundary.is_cut();
        let passed = boundary.passed();

        // The state that the instance has left behind.
        let mut expected = Vec::new();
        for (plan, _) in &events {
            let told = arrivals(&sink, plan).len();
            let is_known = is_settled(plan).await;
            let is_doubled = !is_known && told > life.failures();
            if matches!(life, Delivered | TriedAgain) {
                let is_unknown = passed.last() == Some(&"destination");
                assert_eq!(is_doubled, is_unknown && told > life.failures(), "{what}: {passed:?}");
            }
            expected.push(if is_known { told } else { told.max(life.failures()) + 1 });
        }
        let wakers = Wakers::start(&queue, &function, 1, Faults::default(), SCHEDULE);
        let _wakers = wakers.with_messages_lost_after(LOST, Arc::clone(&place.store));
        for ((plan, body), expected) in events.iter().zip(expected) {
            let key = plan.key.to_string();
            let record = record_in(&*place.store, &key, |record| record.accepted.is_none()).await;
            let received = arrivals(&sink, plan);
            assert_eq!(received.len(), expected, "{what}\n{}", dying.log());
            assert!(received.iter().all(|one| one == body), "{what}: the body has changed");
            match life {
                Refused if expected == 1 => assert_eq!(record.state, State::DeadLetter, "{what}"),
                _ => assert!(is_delivered(&record), "{what}: {record:?}"),
            }
        }
        Course { passed, answered, is_cut }
    }

    /// Returns the body of an event. DynamoDB stores it in three parts.
    fn body(&self, name: &str) -> String {
        match self.place.vars[0].1.starts_with("dynamodb:") {
            true => event(name).replace("1.50", &NOISE),
            false => event(name),
        }
    }

    fn store(&self) -> Vec<(&'static str, String)> {
        self.place.vars.clone()
    }

    fn start(
        &self,
        destination: &str,
        store: &[(&'static str, String)],
        queue: &Queue,
        more: &[(&str, &str)],
    ) -> Emulator {
        let store: Vec<_> = store.iter().map(|(name, value)| (*name, value.as_str())).collect();
        // DynamoDB Local is slow while the machine is busy, and a lease ends with the invocation.
        let times = match (store[0].1.starts_with("dynamodb:"), self.life) {
            (true, _) => ["10", "3000", "1500"],
            // A run of the schedule begins nothing in its last seconds.
            (false, Found) => ["15", "1000", "1500"],
            (false, _) => ["5", "1000", "1500"],
        };
        let common = [
            ("RETRY_SCHEDULE", "0s,1s,1s"),
            ("AWS_LAMBDA_FUNCTION_TIMEOUT", times[0]),
            ("STORE_TIMEOUT_MS", times[1]),
            ("FORWARD_TIMEOUT_MS", times[2]),
        ];
        instance(self.function, destination, &store, queue, &[&common, more].concat())
    }

    /// Starts the instance that reaches its services through the boundary.
    async fn dying(&self, boundary: &Boundary, sink: &Sink, queue: &Queue) -> Emulator {
        let through = async |service, url: &str| {
            let port = url.split_once("127.0.0.1:").map(|(_, rest)| rest).expect("a local service");
            let port: String = port.chars().take_while(char::is_ascii_digit).collect();
            let relay = boundary.to(service, port.parse().unwrap()).await;
            url.replace(&format!(":{port}"), &format!(":{relay}"))
        };
        let mut store = self.store();
        let address = &mut store.last_mut().unwrap().1;
        *address = through("store", address).await;
        let to_queue = through("queue", &queue.moto.url).await;
        let more = [("AWS_ENDPOINT_URL_SQS", to_queue.as_str())];
        self.start(&through("destination", &sink.url).await, &store, queue, &more)
    }
}

/// Delivers an event until a 200. Returns whether that is the first answer or follows one.
async fn vendor(function: &Function, body: &str, what: &str) -> bool {
    let mut is_heard = true;
    loop {
        match function.deliver(body).await {
            Some(heard) if heard.status == 200 => return is_heard,
            // A slow store makes the vendor come again.
            Some(heard) => assert_eq!(heard.status, 503, "{what}: {heard:?}"),
            None => is_heard = false,
        }
    }
}

fn plan_of(body: &str) -> Plan {
    let plan = planned(&delivery(body.to_owned()), &intake(SECRET), Utc::now());
    let mut plan = plan.unwrap();
    plan.route = Route::GCP;
    plan
}

/// Returns the bodies that have arrived for an event.
fn arrivals(sink: &Sink, plan: &Plan) -> Vec<Bytes> {
    let key = plan.key.to_string();
    let is_its_own = |one: &Received| one.header("idempotency-key") == Some(&*key);
    sink.received().into_iter().filter(is_its_own).map(|one| one.body).collect()
}
