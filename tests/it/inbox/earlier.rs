//! Dead letters that an earlier version listed: in one partition of DynamoDB's index, and in one
//! sorted set of a Redis cluster.

use aws_sdk_dynamodb::{Client, types::AttributeValue};
use http::StatusCode;
use webhook_router::key::Key;

use crate::{
    operators::{Vars, event, fail, run, serve, text, vars},
    shared,
    support::{PAYLOAD, Sink, ok, status},
};

/// Moves an entry of the list of dead letters to the place where an earlier version had it.
trait Earlier {
    async fn move_entry(&self, key: &Key);
    /// Returns the number of entries in that place.
    async fn entries(&self) -> usize;
}

impl Earlier for (Client, String) {
    async fn move_entry(&self, key: &Key) {
        let (client, table) = self;
        let update = client.update_item().table_name(table);
        update
            .key("key", AttributeValue::S(key.to_string()))
            .update_expression("SET dead = :old")
            .condition_expression("attribute_exists(dead_letter)")
            .expression_attribute_values(":old", AttributeValue::S("1".into()))
            .send()
            .await
            .unwrap();
    }

    async fn entries(&self) -> usize {
        let (client, table) = self;
        let query = client.query().table_name(table).index_name("dead_letters");
        let query = query.key_condition_expression("dead = :old");
        let query = query.expression_attribute_values(":old", AttributeValue::S("1".into()));
        query.send().await.unwrap().count as usize
    }
}

impl Earlier for crate::servers::RedisCluster {
    async fn move_entry(&self, key: &Key) {
        let cli = |arguments: &[&str]| self.nodes[0].cli(&[&["-c"], arguments].concat());
        let (key, list) = (key.to_string(), format!("webhook:dead-letters:{:x}", key.shard()));
        let time = cli(&["ZSCORE", &list, &key]).trim().to_owned();
        assert_eq!(cli(&["ZREM", &list, &key]).trim(), "1");
        assert_eq!(cli(&["ZADD", "webhook:dead-letters", &time, &key]).trim(), "1");
    }

    async fn entries(&self) -> usize {
        self.nodes[0].cli(&["-c", "ZCARD", "webhook:dead-letters"]).trim().parse().unwrap()
    }
}

#[tokio::test]
async fn on_dynamodb_letters_of_an_earlier_version_are_listed_and_leave_the_list() {
    let table = shared::dynamodb_table().await;
    let vars = table.vars();
    let vars = vars.each_ref().map(|(name, value)| (*name, value.as_str()));
    are_listed_and_leave_the_list(&(Client::new(&table.sdk), table.name.clone()), &vars).await;
}

#[tokio::test]
async fn in_a_cluster_letters_of_an_earlier_version_are_listed_and_leave_the_list() {
    let cluster = shared::redis_cluster().await;
    are_listed_and_leave_the_list(&*cluster, &[("STORE_URL", &cluster.url())]).await;
}

async fn are_listed_and_leave_the_list(earlier: &impl Earlier, store: &[(&str, &str)]) {
    let sink = Sink::start().await;
    let vars: Vars = vars(&sink, store);
    let router = serve(&vars);
    let events: Vec<_> = (0..5).map(|number| event("stripe", number)).collect();
    let keys = fail(&sink, &router, events.clone()).await;
    for key in &keys {
        earlier.move_entry(&key.parse().unwrap()).await;
    }
    assert_eq!(earlier.entries().await, 5);
    // A letter of this version is listed with them.
    let new = fail(&sink, &router, [PAYLOAD.to_owned()]).await;
    let listed = run(&vars, &["dead-letters"]).await;
    for key in keys.iter().chain(&new) {
        let digits = key.trim_start_matches(Key::PREFIX);
        assert_eq!(text(&listed).matches(digits).count(), 1, "{}", text(&listed));
    }

    // A letter that fails again is listed once, by its later failure.
    sink.answers(status(StatusCode::SERVICE_UNAVAILABLE, "still no"));
    assert!(!run(&vars, &["replay", &keys[0]]).await.status.success());
    let listed = String::from_utf8(run(&vars, &["dead-letters"]).await.stdout).unwrap();
    let digits = keys[0].trim_start_matches(Key::PREFIX);
    assert_eq!(listed.matches(digits).count(), 1, "{listed}");
    assert!(listed.lines().last().unwrap().contains(digits), "{listed}");
    assert_eq!(earlier.entries().await, 4);
    sink.answers(ok("done"));
    sink.take();

    // A replay, a discard, the vendor, and an acceptance each remove one.
    assert!(run(&vars, &["replay", &keys[1]]).await.status.success());
    assert_eq!(earlier.entries().await, 3);
    assert!(run(&vars, &["discard", &keys[2]]).await.status.success());
    assert_eq!(earlier.entries().await, 2);
    router.post(events[3].clone()).await.expect(200);
    assert_eq!(earlier.entries().await, 1);
    let accepting = serve(&[vars.clone(), vec![("ANSWER".into(), "accepted".into())]].concat());
    let accepted = accepting.post(events[4].clone()).await;
    assert_eq!((accepted.status, accepted.text()), (200, "accepted"));
    assert_eq!(earlier.entries().await, 0);
    let all = run(&vars, &["replay", "--all"]).await;
    assert!(all.status.success(), "{}", text(&all));
    let left = run(&vars, &["dead-letters"]).await;
    assert_eq!(String::from_utf8_lossy(&left.stdout), "");
    sink.arrived(5).await;
}
