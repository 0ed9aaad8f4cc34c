//! Runs the sample destination in Lambda, or as an HTTP server with an Invoke API of its own. As a
//! server, it can stand for both destinations on one machine.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
};

use anyhow::{Context as _, anyhow};
use lambda_runtime::{LambdaEvent, service_fn};
use serde_json::value::RawValue;

use super::{
    env,
    fronts::Front,
    http_server,
    receipts::{self, Processor},
    started_by_lambda,
    stop::stop_signal,
};
use crate::{
    config::{LOG, log_filter},
    secret::Secret,
    source::envelope,
};

/// The variable of the router's secrets. The router has one of the same name.
const SECRETS: &str = "FORWARD_SECRETS";

/// Runs the processor: in Lambda if Lambda started the process, else as an HTTP server.
///
/// # Errors
/// Fails if a variable is malformed, or the file or the address cannot be used.
pub async fn run() -> anyhow::Result<()> {
    let variable = |name| env(name).filter(|value| !value.is_empty());
    if let Some(text) = variable(LOG) {
        log_filter(&text).map_err(|remedy| anyhow::anyhow!("{LOG} {remedy}"))?;
    }
    let path = variable("PROCESSOR_DB").unwrap_or_else(|| ":memory:".into());
    let processor = Processor::open(&path)
        .with_context(|| format!("cannot open {path} (PROCESSOR_DB): its folder must exist"))?;
    let secrets = secrets(&variable(SECRETS).unwrap_or_default())?;
    let processor = Arc::new(processor.with_secrets(secrets));
    if started_by_lambda() {
        return run_in_lambda(processor).await;
    }
    let address: SocketAddr = match variable("PORT") {
        Some(port) => {
            let port: u16 = port.parse().context("PORT must be a number from 0 to 65535")?;
            (Ipv4Addr::UNSPECIFIED, port).into()
        }
        None => (Ipv4Addr::LOCALHOST, 9090).into(),
    };
    let listener =
        http_server::bind(address).with_context(|| format!("cannot listen on {address} (PORT)"))?;
    let stop = stop_signal()?;
    say!("listening on http://{}", listener.local_addr()?);
    receipts::serve(listener, processor, stop).await;
    Ok(())
}

/// Reads the secrets of the router, or the public keys of its private keys.
fn secrets(list: &str) -> anyhow::Result<Vec<Secret>> {
    let secrets = list.split(',').map(str::trim).filter(|secret| !secret.is_empty());
    let checked = secrets.map(|secret| {
        let secret = Secret::new(secret);
        let problem = envelope::check_secret(&secret).err();
        problem.map_or(Ok(secret), |problem| Err(anyhow!("{SECRETS}: each secret {problem}")))
    });
    checked.collect()
}

async fn run_in_lambda(processor: Arc<Processor>) -> anyhow::Result<()> {
    let function = service_fn(move |event: LambdaEvent<Box<RawValue>>| {
        let processor = Arc::clone(&processor);
        async move {
            let LambdaEvent { payload, context } = event;
            let custom = context.client_context.map(|context| context.custom);
            let event = payload.get();
            let front = Front::of(event).filter(|_| custom.is_none());
            let reply = match front.map(|front| front.delivery(event)) {
                // The event comes from the processor's own front, or from a router that sends such
                // events.
                Some(Ok(request)) => processor.handle(&request),
                _ => processor.invoked(custom, event.as_bytes()),
            };
            Ok::<_, lambda_runtime::Error>(front.unwrap_or_default().answer(reply).await)
        }
    });
    lambda_runtime::run(function).await.map_err(anyhow::Error::from_boxed)
}
