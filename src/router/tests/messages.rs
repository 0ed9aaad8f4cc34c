//! The messages of the queue, and the copies for mirrors, which may go through it.

use serde_json::Value;

use super::*;
use crate::{
    mirror::PATIENCE,
    queue::Packed,
    testing::{Reaction, Sink, sdk_config},
};

/// Starts a server that answers as SQS does when it takes one message.
async fn sqs() -> (Sink, Arc<Queue>) {
    let taken = r#"{"Successful":[{"Id":"0","MessageId":"1","MD5OfMessageBody":""}],"Failed":[]}"#;
    let sink = Sink::start(move |_| Reaction::Answers(Reply::text(StatusCode::OK, taken))).await;
    let url = format!("{}/123456789012/inbox", sink.url);
    let queue = Queue::with_sdk_config(url, &sdk_config(&sink.url));
    (sink, Arc::new(queue))
}

/// Returns the messages that SQS took.
fn messages(sqs: &Sink) -> Vec<Value> {
    let batches = sqs.take();
    let batches = batches.iter().map(|batch| serde_json::from_slice(batch.body()).unwrap());
    batches.map(|mut batch: Value| batch["Entries"][0].take()).collect()
}

async fn mirror() -> Sink {
    Sink::start(|_| Reaction::Answers(Reply::text(StatusCode::OK, "kept"))).await
}

/// Waits for the copies, and returns how many the mirror got.
async fn copies(router: &Router, mirror: &Sink) -> usize {
    router.mirrors().unwrap().finish(PATIENCE).await;
    let copies = mirror.take();
    assert!(copies.iter().all(|copy| copy.headers()["x-webhook-mirror"] == "true"));
    assert!(copies.iter().all(|copy| copy.body() == BODY));
    copies.len()
}

fn mirrors(url: &str) -> Mirrors {
    let vars = [
        ("GCP_TARGET_URL", "https://x.dev"),
        ("ROUTE_THRESHOLD", "256"),
        ("MIRROR_URL", url),
        ("MIRROR_PERCENT", "100"),
    ];
    let mirroring = Config::from_vars(lookup(&vars)).unwrap().mirroring.unwrap();
    Mirrors::new(&mirroring, PATIENCE, 1 << 20).unwrap()
}

impl Trial {
    fn with_mirrors(self, mirrors: Mirrors) -> Self {
        Self { router: self.router.with_mirrors(Arc::new(mirrors)), ..self }
    }

    /// Accepts the event, and returns its key and the time at which it is listed.
    async fn listed(&self) -> (Key, DateTime<Utc>) {
        let key = self.accept().await;
        let list = self.router.store().due(Route::GCP, None, None, 10).await.unwrap();
        (key, list.iter().find(|due| due.key == key).unwrap().at)
    }
}

#[tokio::test]
async fn an_acceptance_sends_a_message_and_is_listed_in_case_the_message_is_lost() {
    let folder = tempfile::tempdir().unwrap();
    let (sqs, queue) = sqs().await;
    let mut trial = Trial::new(folder.path(), &[ACCEPTS, ("RETRY_SCHEDULE", "15m,15m")]).await;
    assert!(trial.router.queue().is_none());
    trial.router = trial.router.with_queue(queue);
    assert!(trial.router.queue().is_some_and(Queue::is_up));
    let (key, at) = trial.listed().await;
    let [message] = &messages(&sqs)[..] else { panic!("not one message") };
    assert_eq!(message["MessageBody"], key.to_string());
    assert_eq!(message["MessageAttributes"]["destination"]["StringValue"], "gcp");
    assert!((880..=900).contains(&message["DelaySeconds"].as_i64().unwrap()), "{message}");
    // The message comes after 15 minutes, and counts as lost after five more.
    assert!((19..=20).contains(&(at - Utc::now()).num_minutes()), "{at}");
}

#[tokio::test]
async fn an_event_that_is_due_later_than_sqs_delays_is_left_to_the_list() {
    let folder = tempfile::tempdir().unwrap();
    let (sqs, queue) = sqs().await;
    let mut trial = Trial::new(folder.path(), &[ACCEPTS, ("RETRY_SCHEDULE", "16m")]).await;
    trial.router = trial.router.with_queue(queue);
    let (_, at) = trial.listed().await;
    assert!((15..=16).contains(&(at - Utc::now()).num_minutes()), "{at}");
    assert_eq!(messages(&sqs), Vec::<Value>::new());
}

#[tokio::test]
async fn an_event_is_copied_once_it_is_delivered() {
    let folder = tempfile::tempdir().unwrap();
    let mirror = mirror().await;
    let trial = Trial::new(folder.path(), &[]).await.with_mirrors(mirrors(&mirror.url));
    trial.answers([answered(422, "no")]);
    trial.post(BODY, 422, "no").await;
    assert_eq!(copies(&trial.router, &mirror).await, 0);
    trial.post(BODY, 200, "done").await;
    assert_eq!(copies(&trial.router, &mirror).await, 1);
    trial.post(BODY, 200, "duplicate ignored").await;
    assert_eq!(copies(&trial.router, &mirror).await, 0);
}

#[tokio::test]
async fn an_accepted_event_is_copied_unless_an_operator_asked_for_it() {
    for (cause, count) in [(Cause::Due, 1), (Cause::Operator, 0)] {
        let folder = tempfile::tempdir().unwrap();
        let mirror = mirror().await;
        let trial = Trial::new(folder.path(), &[ACCEPTS]).await.with_mirrors(mirrors(&mirror.url));
        let key = trial.accept().await;
        let handled = trial.attempt(key, cause).await;
        assert!(matches!(handled, Handled::Tried { ending: Ending::Delivered, .. }), "{handled:?}");
        assert_eq!(copies(&trial.router, &mirror).await, count, "{cause:?}");
    }
}

#[tokio::test]
async fn a_copy_goes_through_the_queue_to_its_mirror() {
    let folder = tempfile::tempdir().unwrap();
    let (mirror, (sqs, queue)) = (mirror().await, sqs().await);
    let mirrors = mirrors(&mirror.url).with_queue(queue);
    let trial = Trial::new(folder.path(), &[]).await.with_mirrors(mirrors);
    let reply = trial.post(BODY, 200, "done").await;
    assert_eq!(copies(&trial.router, &mirror).await, 0);
    let [message] = &messages(&sqs)[..] else { panic!("not one message") };
    assert_eq!(message["MessageBody"], reply.headers["x-webhook-key"].to_str().unwrap());
    let attribute = |name: &str| message["MessageAttributes"][name]["StringValue"].as_str();
    let parcel = Parcel {
        key: message["MessageBody"].as_str().unwrap().parse().unwrap(),
        destination: Route::GCP,
        bytes: attribute("bytes").unwrap().parse().unwrap(),
        copy: Packed(attribute("copy").unwrap().to_owned()),
    };
    let router = Arc::new(trial.router);
    router.bring(parcel);
    assert_eq!(copies(&router, &mirror).await, 1);
}
