//! Checks the services that a configuration names: the store, the targets' names, the settings of
//! AWS, and certificates. The checks run in parallel, each with a time limit. They change nothing,
//! and send no request to a target.

use std::{net::IpAddr, path::Path, time::Duration};

use aws_credential_types::provider::ProvideCredentials as _;
use chrono::{DateTime, Utc};
use tokio::{net::lookup_host, time::timeout};

use crate::{
    authorities::Authorities,
    aws,
    config::{AwsTarget, Config, GcpTarget, StoreUrl},
    destination,
    finding::Finding,
    resolver::Resolver,
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
    let (store, gcp_target, aws) = tokio::join!(
        within("STORE_URL", &url, store),
        async {
            match &config.targets.gcp {
                Some(gcp) => within("GCP_TARGET_URL", "its host", gcp_target(gcp)).await,
                None => Vec::new(),
            }
        },
        async {
            match &config.targets.aws {
                Some(aws) => within("AWS_TARGET_FUNCTION", "the Lambda API", aws_target(aws)).await,
                None if matches!(config.store.url, StoreUrl::DynamoDb { .. }) => {
                    within(AWS, "AWS's settings", aws_settings(None)).await
                }
                None => Vec::new(),
            }
        },
    );
    let redis_ca = match &config.store.url {
        StoreUrl::Redis(redis) => redis.ca.as_ref(),
        StoreUrl::Sqlite(_) | StoreUrl::DynamoDb { .. } => None,
    };
    let gcp = config.targets.gcp.as_ref();
    let gcp_ca = gcp.and_then(|gcp| gcp.ca.as_ref());
    let files = [("REDIS_CA_FILE", redis_ca), ("GCP_CA_FILE", gcp_ca)];
    let files = files.into_iter().filter_map(|(name, ca)| Some(authorities(name, ca?)));
    let client_certificate = gcp.and_then(|gcp| gcp.client_certificate.as_ref());
    let files = files.chain(client_certificate.map(|client| {
        let (name, end) = ("GCP_CLIENT_CERT_FILE", client.valid_until());
        certificates(name, &client.path, client.count(), end)
    }));
    store.into_iter().chain(files).chain(gcp_target).chain(aws).collect()
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

async fn gcp_target(target: &GcpTarget) -> Vec<Finding> {
    let (Some(host), Some(port)) = (target.url.host_str(), target.url.port_or_known_default())
    else {
        return Vec::new();
    };
    vec![resolved("GCP_TARGET_URL", host, port, &Resolver::of_target(&target.url)).await]
}

async fn aws_target(target: &AwsTarget) -> Vec<Finding> {
    let mut findings = aws_settings(target.region()).await;
    match destination::lambda_endpoint(target, aws::sdk_config().await).await {
        Ok(url) => {
            let (host, port) = (url.host_str(), url.port_or_known_default());
            if let (Some(host), Some(port)) = (host, port) {
                let resolver = Resolver::open();
                findings.push(resolved("AWS_TARGET_FUNCTION", host, port, &resolver).await);
            }
        }
        // The region is absent, and `aws_settings` has reported that.
        Err(_) if findings.iter().any(Finding::is_problem) => {}
        Err(error) => findings.push(Finding::error("AWS_ENDPOINT_URL_LAMBDA", error)),
    }
    findings
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

/// Resolves a host's name, and checks whether the router may connect to its addresses.
async fn resolved(subject: &str, host: &str, port: u16, resolver: &Resolver) -> Finding {
    // A URL encloses an IPv6 address in brackets.
    let name = host.trim_matches(['[', ']']);
    if name.parse::<IpAddr>().is_ok() {
        return Finding::ok(subject, format!("{host} is an address, so it needs no DNS"));
    }
    match lookup_host((name, port)).await.map(Iterator::collect::<Vec<_>>) {
        Ok(addresses) if addresses.is_empty() => {
            Finding::error(subject, format!("{host} has no address"))
        }
        Ok(addresses) => match resolver.check(host, &addresses) {
            Ok(()) => Finding::ok(subject, format!("{host} resolves to an address")),
            Err(forbidden) => Finding::error(subject, forbidden.to_string()),
        },
        Err(error) => Finding::error(
            subject,
            format!("{host} cannot be looked up: {error}: the name or this machine's DNS is wrong"),
        ),
    }
}

fn authorities(name: &str, ca: &Authorities) -> Finding {
    certificates(name, &ca.path, ca.certificates.len(), ca.valid_until())
}

/// Returns a finding about the certificates in a file, and about the time when they expire.
fn certificates(name: &str, path: &Path, count: usize, end: Option<DateTime<Utc>>) -> Finding {
    let path = path.display();
    let count = match count {
        1 => "1 certificate".to_owned(),
        count => format!("{count} certificates"),
    };
    let text = match end {
        Some(end) if end < Utc::now() + SOON => {
            let text = format!("{path} has a certificate that expires at {end}: replace it");
            return Finding::warning(name, text);
        }
        Some(end) => format!("{path} has {count}, valid until {end}"),
        None => format!("{path} has {count}"),
    };
    Finding::ok(name, text)
}
