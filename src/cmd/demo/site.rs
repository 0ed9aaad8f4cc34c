//! Runs a router and its two destinations on this machine, with real HTTP and a real Invoke call.

use std::{
    collections::HashMap,
    net::Ipv4Addr,
    path::Path,
    sync::{Arc, atomic::AtomicBool},
};

use anyhow::{Context as _, ensure};
use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_credential_types::Credentials;
use http::StatusCode;
use sha2::{Digest as _, Sha256};
use tokio::{sync::watch, task::JoinSet};

use super::{answers::Receipts, traffic::Traffic};
use crate::{
    aws,
    cmd::{
        env, http_server,
        listen::{handler, listen_on},
        receipts::{self, Processor},
        sending,
    },
    config::{Config, LOG, Target},
    delivery::{Delivery, Reply},
    destination::{CloudRun, Destination, Lambda},
    route::Route,
    router::Router,
    source::envelope,
    store,
};

/// Number of deliveries of one event that the race sends at the same moment.
const AT_ONCE: usize = 32;

/// A router on SQLite and its two destinations, on ports of this machine.
pub(super) struct Site {
    client: reqwest::Client,
    pub router: String,
    pub cloud_run: String,
    pub lambda: String,
    pub store: String,
    /// True while the requests to the router are printed as they come.
    pub shows_traffic: Arc<AtomicBool>,
    gcp: Arc<Processor>,
    aws: Arc<Processor>,
}

impl Site {
    /// Starts the router, with its store in `folder`, and both destinations. `variables` are added to
    /// the router's own.
    pub async fn start(
        folder: &Path,
        variables: impl Iterator<Item = (String, String)>,
        stopped: watch::Receiver<bool>,
    ) -> anyhow::Result<Self> {
        let (gcp_processor, cloud_run) = start_processor(stopped.clone()).await?;
        let (aws_processor, lambda) = start_processor(stopped.clone()).await?;
        let store = format!("sqlite:{}", folder.join("demo.db").display());
        let listener = http_server::bind((Ipv4Addr::LOCALHOST, 0).into())?;
        let address = format!("http://{}", listener.local_addr()?);
        let log = env(LOG).unwrap_or_default();
        let own = [
            (LOG, log.as_str()),
            ("STORE_URL", &store),
            ("GCP_TARGET_URL", &cloud_run),
            ("AWS_TARGET_FUNCTION", "webhook-processor"),
            ("ALLOW_UNSIGNED", "true"),
            ("PUBLIC_URL", &address),
        ];
        let own = own.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned()));
        let variables: HashMap<_, _> = own.chain(variables).collect();
        let config = Config::from_vars(|name| variables.get(name).cloned())?;
        let gcp = config.targets.get(Route::GCP).and_then(Target::http);
        let gcp = gcp.context("bug: the demo has no gcp target")?;
        let aws = config.targets.get(Route::AWS).and_then(Target::lambda);
        let aws = aws.context("bug: the demo has no aws target")?;
        let timeout = config.forward.timeout;
        let gcp = CloudRun::new(gcp, timeout).map_err(anyhow::Error::msg)?;
        let aws = Lambda::with_sdk_config(aws.clone(), timeout, &local_sdk_config(&lambda));
        let destinations: [(Route, Box<dyn Destination>); 2] =
            [(Route::GCP, Box::new(gcp)), (Route::AWS, Box::new(aws))];
        let destinations = destinations.into_iter().collect();
        let opened = store::open(&config.store).await?;
        let router = Arc::new(Router::new(&config, opened, destinations));
        let shows_traffic = Arc::new(AtomicBool::new(false));
        let is_shown = Arc::clone(&shows_traffic);
        tokio::spawn(async move {
            let handler = handler(Arc::clone(&router), &config);
            let handler = Traffic { handler, is_shown };
            listen_on(listener, &router, handler, &config, until(stopped)).await;
        });
        let client = sending::client()?;
        let (gcp, aws) = (gcp_processor, aws_processor);
        Ok(Self { client, router: address, cloud_run, lambda, store, shows_traffic, gcp, aws })
    }

    /// Sends one event many times at once, and describes the answers.
    pub async fn race(&self) -> anyhow::Result<String> {
        let body = format!(
            r#"{{"vendor":"stripe","event_type":"race","created_at":"2026-05-06T12:00:00Z","n":{AT_ONCE}}}"#
        );
        let mut posts = JoinSet::new();
        for _ in 0..AT_ONCE {
            posts.spawn(
                self.client
                    .post(format!("{}{}", self.router, envelope::PATH))
                    .body(body.clone())
                    .send(),
            );
        }
        let mut answers = HashMap::new();
        while let Some(post) = posts.join_next().await {
            let response = post??;
            let status = response.status();
            let replayed = response.headers().contains_key("idempotent-replayed");
            let answer = match (status, replayed) {
                (StatusCode::OK, false) => "200 processed",
                (StatusCode::OK, true) => "200 duplicate ignored",
                (StatusCode::CONFLICT, _) => "409 in progress",
                _ => anyhow::bail!("an unexpected answer in the race: {status}"),
            };
            *answers.entry(answer).or_insert(0) += 1;
        }
        let sha256 = hex::encode(Sha256::digest(&body));
        let received = self.received()?;
        let deliveries: u32 = received
            .values()
            .filter(|receipt| receipt.sha256 == sha256)
            .map(|receipt| receipt.deliveries)
            .sum();
        ensure!(deliveries == 1, "the race reached a destination {deliveries} times");
        let mut counts: Vec<_> = answers.into_iter().collect();
        counts.sort();
        let counts: Vec<_> = counts.iter().map(|(answer, n)| format!("{n} x {answer}")).collect();
        Ok(format!(
            "One event {AT_ONCE} times at the same moment: {}; it reached its destination once.",
            counts.join(", ")
        ))
    }

    /// Sends a delivery to its path.
    pub async fn send(&self, delivery: &Delivery) -> anyhow::Result<Reply> {
        let url = format!("{}{}", self.router, delivery.path).parse()?;
        sending::send(&self.client, url, delivery).await
    }

    /// Returns the receipts of both destinations, by destination and key.
    pub fn received(&self) -> anyhow::Result<Receipts> {
        let mut received = HashMap::new();
        for (name, processor) in [("gcp", &self.gcp), ("aws", &self.aws)] {
            for receipt in processor.receipts()? {
                received.insert((name, receipt.key.clone()), receipt);
            }
        }
        Ok(received)
    }
}

async fn start_processor(
    stopped: watch::Receiver<bool>,
) -> anyhow::Result<(Arc<Processor>, String)> {
    let processor = Arc::new(Processor::open(":memory:")?);
    let listener = http_server::bind((Ipv4Addr::LOCALHOST, 0).into())?;
    let address = format!("http://{}", listener.local_addr()?);
    tokio::spawn(receipts::serve(listener, Arc::clone(&processor), until(stopped)));
    Ok((processor, address))
}

async fn until(mut stopped: watch::Receiver<bool>) {
    // An error means that the demo has ended, so the servers stop as well.
    let _ = stopped.wait_for(|stopped| *stopped).await;
}

/// Returns AWS settings for an endpoint on this machine. The endpoint does not check credentials.
fn local_sdk_config(endpoint: &str) -> SdkConfig {
    let credentials = Credentials::new("demo", "demo", None, None, "demo");
    SdkConfig::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new("us-east-1"))
        .credentials_provider(aws_credential_types::provider::SharedCredentialsProvider::new(
            credentials,
        ))
        .http_client(aws::http_client())
        .endpoint_url(endpoint)
        .build()
}
