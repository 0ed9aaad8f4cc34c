//! The commands, the servers and the Lambda function of the binaries. Only this module uses the Lambda runtime, the command line and
//! servers.

/// Prints a line for a person. If nobody reads the output any more, as after `| head`, the work goes on.
macro_rules! say {
    ($($line:tt)*) => {{
        use std::io::Write as _;
        let _ = writeln!(std::io::stdout(), $($line)*);
    }};
}

// Parts that commands share.
pub mod address;
mod after_answer;
mod arguments;
mod backlog;
mod diagnosis;
mod filters;
pub mod fronts;
mod function;
pub mod http_server;
mod inbox;
mod intake;
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
mod unread;

// Commands. No command uses another.
pub mod dead_letters;
pub mod demo;
pub mod doctor;
pub mod drain;
pub mod event;
pub mod explain;
pub mod inspect;
pub mod lambda;
pub mod pending;
pub mod plan_shift;
pub mod processor;
pub mod replay;
pub mod serve;
pub mod sources;
pub mod variables;

use std::{collections::HashMap, iter, sync::Arc, time::Duration};

use anyhow::Context as _;

use crate::{
    aws,
    config::{self, Config, ConfigError, StoreConfig},
    destination::Destinations,
    mirror::Mirrors,
    router::Router,
    store::{self, Store, StoreError},
};

/// Returns a variable of the process. Bytes that are not UTF-8 become U+FFFD, which the
/// configuration refuses in every variable that it reads.
pub fn env(name: &str) -> Option<String> {
    Some(std::env::var_os(name)?.to_string_lossy().into_owned())
}

/// The variable that names a secret with further variables.
const SECRETS_ARN: &str = "SECRETS_ARN";

/// Returns the variables of the process, and the variables in the secret that SECRETS_ARN names.
/// The variables of the process override those of the secret.
///
/// # Errors
/// Fails if the secret cannot be read, or holds SECRETS_ARN or a name that is not a variable.
pub async fn variables() -> anyhow::Result<impl Fn(&str) -> Option<String>> {
    const LOG_LEVEL: &str = "RUST_LOG";
    let secret = match env(SECRETS_ARN).filter(|value| !value.is_empty()) {
        Some(arn) => aws::secret_variables(&arn)
            .await
            .map_err(|problem| anyhow::anyhow!("the secret of {SECRETS_ARN} {problem}"))?,
        None => HashMap::new(),
    };
    if let Some(name) = secret.keys().find(|name| !config::is_variable(name)) {
        anyhow::bail!(
            "the secret of {SECRETS_ARN} holds `{name}`, which is not a variable (`webhook-router variables` lists them)"
        );
    }
    anyhow::ensure!(
        !secret.contains_key(SECRETS_ARN),
        "the secret of {SECRETS_ARN} holds {SECRETS_ARN}: remove it there"
    );
    if secret.contains_key(LOG_LEVEL) {
        tracing::warn!(
            "{LOG_LEVEL} in the secret of {SECRETS_ARN} has no effect: set it in the environment"
        );
    }
    let mut variables = secret;
    // All are read together: each look-up of one variable would search through all of them.
    for (name, value) in std::env::vars_os() {
        let (name, value) = (name.to_string_lossy().into_owned(), value.to_string_lossy());
        // The secret's value replaces an empty variable. If the secret has none, the variable stays
        // empty, which is not the same as not set.
        if !value.is_empty() || !variables.contains_key(&name) {
            variables.insert(name, value.into_owned());
        }
    }
    Ok(move |name: &str| variables.get(name).cloned())
}

/// Returns the problem of the secret that SECRETS_ARN names, and the problems of the variables that
/// the environment sets. The secret may set the other variables. So a problem does not count if its
/// remedy names one of them.
pub fn problems_beside_secret(secret: &anyhow::Error) -> Vec<ConfigError> {
    let is_set = |name: &str| env(name).is_some_and(|value| !value.is_empty());
    let is_certain = |problem: &ConfigError| {
        let in_a_name = |char: char| matches!(char, 'A'..='Z' | '0'..='9' | '_');
        let mut words = problem.remedy.split(|char| !in_a_name(char));
        is_set(&problem.variable) && words.all(|word| !config::is_variable(word) || is_set(word))
    };
    let secret = ConfigError { variable: SECRETS_ARN.into(), remedy: format!("{secret:#}") };
    let (_, others) = Config::read(env);
    iter::once(secret).chain(others.into_iter().filter(is_certain)).collect()
}

/// Returns whether the Lambda runtime started this process: with its API, and without a command.
pub fn started_by_lambda() -> bool {
    env("AWS_LAMBDA_RUNTIME_API").is_some() && std::env::args_os().len() == 1
}

/// Opens the store for an operator's command. The store must exist. A new, empty store would hide
/// the problem.
///
/// # Errors
/// Fails if the store does not exist or cannot be used.
pub async fn existing_store(config: &StoreConfig) -> anyhow::Result<Arc<dyn Store>> {
    if let Some(path) = config.url.file() {
        anyhow::ensure!(path.exists(), "there is no store at {} (STORE_URL)", path.display());
    }
    store::open(config).await.context("the store cannot be used (STORE_URL)")
}

/// Creates the configured mirrors, if there are any. `timeout` limits one copy, and `bytes` all copies
/// together.
///
/// # Errors
/// Fails if a mirror's URL cannot be used.
fn mirrors(config: &Config, timeout: Duration, bytes: usize) -> anyhow::Result<Option<Mirrors>> {
    let mirroring = config.mirroring.as_ref();
    let mirrors = mirroring.map(|mirroring| Mirrors::new(mirroring, timeout, bytes)).transpose();
    mirrors.map_err(anyhow::Error::msg)
}

/// Creates the router from the configured parts. `store` opens its store.
///
/// # Errors
/// Fails if the store or a file cannot be used.
pub async fn router(
    config: &Config,
    store: impl Future<Output = Result<Arc<dyn Store>, StoreError>>,
) -> anyhow::Result<Router> {
    let destinations =
        Destinations::new(&config.targets, config.forward.timeout).map_err(anyhow::Error::msg)?;
    let store = store.await.context("the store cannot be used (STORE_URL)")?;
    Ok(Router::new(config, store, destinations))
}
