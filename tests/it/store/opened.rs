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
    /// The same store, as another process has it.
    pub another: Arc<dyn Store>,
    /// True if the store finds a key by its first digits.
    pub finds_keys: bool,
    /// A server or folder that must live as long as the store is used.
    _place: Box<dyn Any>,
}

pub(super) async fn sqlite() -> Opened {
    let folder = tempfile::tempdir().unwrap();
    let [store, another] = open(&[("STORE_URL", &support::sqlite(folder.path()))]).await;
    Opened { store, another, finds_keys: true, _place: Box::new(folder) }
}

pub(super) async fn redis() -> Opened {
    let [store, another] = open(&[("STORE_URL", &shared::redis_database())]).await;
    Opened { store, another, finds_keys: true, _place: Box::new(()) }
}

pub(super) async fn redis_tls() -> Opened {
    let (url, ca) = shared::redis_tls_database();
    let vars = [("STORE_URL", url.as_str()), ("REDIS_CA_FILE", ca.to_str().unwrap())];
    let [store, another] = open(&vars).await;
    Opened { store, another, finds_keys: true, _place: Box::new(()) }
}

pub(super) async fn redis_cluster() -> Opened {
    let cluster = shared::redis_cluster().await;
    let [store, another] = open(&[("STORE_URL", &cluster.url())]).await;
    Opened { store, another, finds_keys: false, _place: Box::new(cluster) }
}

pub(super) async fn dynamodb() -> Opened {
    let Table { name, sdk, .. } = shared::dynamodb_table().await;
    let open = || Arc::new(DynamoDb::with_sdk_config(name.clone(), TIMEOUT, &sdk));
    Opened { store: open(), another: open(), finds_keys: false, _place: Box::new(()) }
}

/// A server may be slow while the whole test suite runs.
const TIMEOUT: Duration = Duration::from_secs(20);

/// Opens a store twice as the router does, except for the clock, because the clauses choose their times.
/// In Redis, whose server has its own clock, the scripts use the times that they are given. The
/// rest of the scripts is the same. `clocks.rs` and `race.rs` check the server's clock against the
/// contract.
async fn open(vars: &[(&str, &str)]) -> [Arc<dyn Store>; 2] {
    let targets = [("GCP_TARGET_URL", "https://x.dev"), ("AWS_TARGET_FUNCTION", "p")];
    let mut config = Config::from_vars(lookup(&[&targets, vars].concat())).unwrap();
    config.store.timeout = TIMEOUT;
    let open = async || -> Arc<dyn Store> {
        match &config.store.url {
            StoreUrl::Redis(url) => {
                let store = store::Redis::new(url, config.store.timeout);
                Arc::new(store.by_callers_time())
            }
            _ => store::open(&config.store).await.unwrap(),
        }
    };
    [open().await, open().await]
}
