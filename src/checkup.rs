//! Checks the services that a configuration names: the store, the targets' names, the settings of
//! AWS, and certificates. The checks run in parallel, each with a time limit. They change nothing,
//! and send no request to a target.

use std::{net::IpAddr, time::Duration};

use aws_credential_types::provider::ProvideCredentials as _;
use chrono::Utc;
use futures_util::future::join_all;
use tokio::{net::lookup_host, time::timeout};

use crate::{
    authorities::Authorities,
    aws,
    config::{Config, HttpTarget, LambdaTarget, StoreUrl},
    destination,
    finding::Finding,
};

/// Time limit for a check.
const PATIENCE: Duration = Duration::from_secs(5);
/// A certificate that expires within this time causes a warning.
const SOON: chrono::TimeDelta = chrono::TimeDelta::days(30);

const AWS: &str = "AWS_REGION";
const CREDENTIALS: &str = "AWS credentials";

/// Checks the services that a configuration names. `store` returns the findings about its store.
pub async fn run(config: &Config, store: impl Future<Output = Vec<Finding>>) -> Vec<Finding> {
    let url = config.store.url.to_string();
    let services = config.targets.iter().filter_map(|target| Some((target, target.http()?)));
    let services = services.map(|(target, http)| {
        let setting = &target.setting;
        within(setting, "its host", http_target(setting, http))
    });
    let lambdas: Vec<_> =
        config.targets.iter().filter_map(|target| Some((target, target.lambda()?))).collect();
    // A function's ARN has its own region.
    let regions = lambdas.iter().map(|(_, lambda)| lambda.region());
    let region = regions.reduce(|one, other| one.and(other)).flatten();
    let uses_aws = !lambdas.is_empty() || matches!(config.store.url, StoreUrl::DynamoDb { .. });
    let lambdas = lambdas.into_iter().map(|(target, lambda)| {
        let setting = &target.setting;
        within(setting, "the Lambda API", lambda_target(setting, lambda))
    });
    let (store, services, aws, lambdas) = tokio::join!(
        within("STORE_URL", &url, store),
        join_all(services),
        async {
            match uses_aws {
                true => within(AWS, "AWS's settings", aws_settings(region)).await,
                false => Vec::new(),
            }
        },
        join_all(lambdas),
    );
    let redis_ca = match &config.store.url {
        StoreUrl::Redis(redis) => redis.ca.as_ref(),
        StoreUrl::Sqlite(_) | StoreUrl::DynamoDb { .. } => None,
    };
    let files = config.targets.iter().filter_map(|target| {
        let name = match target.setting.as_str() {
            "GCP_TARGET_URL" => "GCP_CA_FILE",
            setting => setting,
        };
        Some((name, target.http()?.ca.as_ref()?))
    });
    let files = redis_ca.map(|ca| ("REDIS_CA_FILE", ca)).into_iter().chain(files);
    let files = files.map(|(name, ca)| authorities(name, ca));
    let targets = services.into_iter().flatten();
    let lambdas = lambdas.into_iter().flatten();
    store.into_iter().chain(files).chain(targets).chain(aws).chain(lambdas).collect()
}

/// Returns the findings, or a finding that reports the timeout.
async fn within(
    subject: &str,
    what: &str,
    looking: impl Future<Output = Vec<Finding>>,
) -> Vec<Finding> {
    timeout(PATIENCE, looking).await.unwrap_or_else(|_| {
        let text = format!("{what} did not answer within {} s", PATIENCE.as_secs());
        vec![Finding::error(subject, text)]
    })
}

async fn http_target(setting: &str, target: &HttpTarget) -> Vec<Finding> {
    let (Some(host), Some(port)) = (target.url.host_str(), target.url.port_or_known_default())
    else {
        return Vec::new();
    };
    vec![resolved(setting, host, port).await]
}

async fn lambda_target(setting: &str, target: &LambdaTarget) -> Vec<Finding> {
    let sdk = aws::sdk_config().await;
    match destination::lambda_endpoint(target, sdk).await {
        Ok(url) => match (url.host_str(), url.port_or_known_default()) {
            (Some(host), Some(port)) => vec![resolved(setting, host, port).await],
            _ => Vec::new(),
        },
        // `aws_settings` reports that the region is absent.
        Err(_) if target.region().is_none() && sdk.region().is_none() => Vec::new(),
        Err(error) => vec![Finding::error("AWS_ENDPOINT_URL_LAMBDA", error)],
    }
}

/// Looks for a region, unless the target's ARN has one, and for credentials.
async fn aws_settings(region_of_target: Option<&str>) -> Vec<Finding> {
    let sdk = aws::sdk_config().await;
    let region = sdk.region().map(AsRef::as_ref);
    let region = match (region, region_of_target) {
        (Some(region), _) => Finding::ok(AWS, region),
        (None, Some(region)) => Finding::ok(AWS, format!("not set; the function's is {region}")),
        (None, None) => Finding::error(AWS, "must be set, or be in the profile (AWS_PROFILE)"),
    };
    let credentials = match sdk.credentials_provider() {
        Some(provider) => match provider.provide_credentials().await {
            Ok(_) => Finding::ok(CREDENTIALS, "found"),
            Err(error) => Finding::error(CREDENTIALS, aws::with_remedy(&error)),
        },
        None => Finding::error(CREDENTIALS, "set AWS_PROFILE, or the variables of AWS"),
    };
    vec![region, credentials]
}

/// Resolves a host's name.
async fn resolved(subject: &str, host: &str, port: u16) -> Finding {
    // A URL encloses an IPv6 address in brackets.
    let name = host.trim_matches(['[', ']']);
    if name.parse::<IpAddr>().is_ok() {
        return Finding::ok(subject, format!("{host} is an address, so it needs no DNS"));
    }
    match lookup_host((name, port)).await.map(Iterator::count) {
        Ok(1..) => Finding::ok(subject, format!("{host} resolves to an address")),
        Ok(0) => Finding::error(subject, format!("{host} has no address")),
        Err(error) => Finding::error(
            subject,
            format!("{host} cannot be looked up: {error}: the name or this machine's DNS is wrong"),
        ),
    }
}

fn authorities(name: &str, ca: &Authorities) -> Finding {
    let path = ca.path.display();
    let count = match ca.certificates.len() {
        1 => "1 certificate".to_owned(),
        count => format!("{count} certificates"),
    };
    let text = match ca.valid_until() {
        Some(end) if end < Utc::now() + SOON => {
            let text = format!("{path} has a certificate that expires at {end}: replace it");
            return Finding::warning(name, text);
        }
        Some(end) => format!("{path} has {count}, valid until {end}"),
        None => format!("{path} has {count}"),
    };
    Finding::ok(name, text)
}
