//! What the binaries do. The only place for servers, the Lambda runtime and the command line.

// Parts that commands share.
pub mod address;
mod arguments;
mod filters;
pub mod fronts;
mod function;
pub mod http_server;
mod keys;
mod listen;
mod ready;
mod receipts;
mod redrive;
mod samples;
mod sending;
mod shown;
mod source_ip;
mod stop;

// Commands. No command uses another.
pub mod dead_letters;
pub mod demo;
pub mod doctor;
pub mod event;
pub mod explain;
pub mod inspect;
pub mod lambda;
pub mod processor;
pub mod replay;
pub mod serve;
pub mod sources;
pub mod variables;

use std::{collections::HashMap, sync::Arc};

use anyhow::Context as _;

use crate::{
    aws,
    config::{self, Config, StoreConfig, StoreUrl},
    destination::Destinations,
    router::Router,
    store::{self, Store},
};

/// A variable of the process. What is not UTF-8 in it becomes U+FFFD, which no setting may hold.
pub fn env(name: &str) -> Option<String> {
    Some(std::env::var_os(name)?.to_string_lossy().into_owned())
}

/// The variables of the process, and those in the secret that SECRETS_ARN names. A variable of the
/// process goes before one of the secret.
///
/// # Errors
/// A secret that cannot be read, or that holds what is no variable.
pub async fn variables() -> anyhow::Result<impl Fn(&str) -> Option<String>> {
    const NAME: &str = "SECRETS_ARN";
    let set = |name: &str| env(name).filter(|value| !value.is_empty());
    let secret = match set(NAME) {
        Some(arn) => aws::secret_variables(&arn)
            .await
            .map_err(|problem| anyhow::anyhow!("the secret of {NAME} {problem}"))?,
        None => HashMap::new(),
    };
    if let Some(name) = secret.keys().find(|name| !config::is_variable(name) || *name == NAME) {
        anyhow::bail!(
            "the secret of {NAME} holds `{name}`, which is no variable (`webhook-router variables` lists them)"
        );
    }
    // One that is set to nothing gives way to the secret, and is told from one that is not set.
    Ok(move |name: &str| set(name).or_else(|| secret.get(name).cloned()).or_else(|| env(name)))
}

/// Whether the Lambda runtime started this process: with its API, and without a command.
pub fn started_by_lambda() -> bool {
    env("AWS_LAMBDA_RUNTIME_API").is_some() && std::env::args_os().len() == 1
}

/// The store, for a command of an operator's. It must be there: an empty one, newly made, would look
/// as if all were well.
///
/// # Errors
/// When it is not there, or cannot be used.
pub async fn existing_store(config: &StoreConfig) -> anyhow::Result<Arc<dyn Store>> {
    if let StoreUrl::Sqlite(path) = &config.url {
        anyhow::ensure!(path.exists(), "there is no store at {} (STORE_URL)", path.display());
    }
    store::open(config).await.context("the store cannot be used (STORE_URL)")
}

/// Puts the configured parts together.
///
/// # Errors
/// The store or a file that cannot be used.
pub async fn router(config: &Config) -> anyhow::Result<Router> {
    let destinations =
        Destinations::new(&config.targets, config.forward.timeout).map_err(anyhow::Error::msg)?;
    let store = store::open(&config.store).await.context("the store cannot be used (STORE_URL)")?;
    Ok(Router::new(config, store, destinations))
}
