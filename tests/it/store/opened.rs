//! All stores, each opened empty. The tests of one store share its server.

use std::{any::Any, sync::Arc, time::Duration};

use webhook_router::{
    config::{Config, StoreUrl},
    store::{self, DynamoDb, Store},
};

use crate::{
    shared::{self, Table},
    support::{self, lookup},
};

/// An empty store that no other test uses.
pub(super) struct Opened {
    pub store: Arc<dyn Store>,
    /// True if the store finds a key by its first digits.
    pub finds_keys: bool,
    /// A server or folder that must live as long as the store is used.
    _place: Box<dyn Any>,
}

pub(super) async fn sqlite() -> Opened {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&[("STORE_URL", &support::sqlite(folder.path()))]).await;
    Opened { store, finds_keys: true, _place: Box::new(folder) }
}

pub(super) async fn redis() -> Opened {
    let store = open(&[("STORE_URL", &shared::redis_database())]).await;
    Opened { store, finds_keys: true, _place: Box::new(()) }
}

pub(super) async fn redis_tls() -> Opened {
    let (url, ca) = shared::redis_tls_database();
    let store = open(&[("STORE_URL", &url), ("REDIS_CA_FILE", ca.to_str().unwrap())]).await;
    Opened { store, finds_keys: true, _place: Box::new(()) }
}

pub(super) async fn redis_cluster() -> Opened {
    let cluster = shared::redis_cluster().await;
    let store = open(&[("STORE_URL", &cluster.url())]).await;
    Opened { store, finds_keys: false, _place: Box::new(cluster) }
}

pub(super) async fn dynamodb() -> Opened {
    let Table { name, sdk, .. } = shared::dynamodb_table().await;
    let store = DynamoDb::with_sdk_config(name, TIMEOUT, &sdk);
    Opened { store: Arc::new(store), finds_keys: false, _place: Box::new(()) }
}

/// A server may be slow while the whole test suite runs.
const TIMEOUT: Duration = Duration::from_secs(20);

/// Opens a store as the router does, except for the clock, because the clauses choose their times.
/// In Redis, whose server has its own clock, the scripts use the times that they are given. The
/// rest of the scripts is the same. `clocks.rs` and `race.rs` check the server's clock against the
/// contract.
async fn open(vars: &[(&str, &str)]) -> Arc<dyn Store> {
    let targets = [("GCP_TARGET_URL", "https://x.dev"), ("AWS_TARGET_FUNCTION", "p")];
    let mut config = Config::from_vars(lookup(&[&targets, vars].concat())).unwrap();
    config.store.timeout = TIMEOUT;
    match &config.store.url {
        StoreUrl::Redis(url) => {
            let store = store::Redis::new(url, config.store.timeout);
            Arc::new(store.by_callers_time())
        }
        _ => store::open(&config.store).await.unwrap(),
    }
}
