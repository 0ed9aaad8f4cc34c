//! Checks the services that a configuration names: the store, the targets' names, the settings of
//! AWS, ID tokens, and certificates. The checks run in parallel, each with a time limit. They change
//! nothing, and send no request to a target.

use std::{net::IpAddr, path::Path, time::Duration};

use aws_credential_types::provider::ProvideCredentials as _;
use chrono::{DateTime, Utc};
use futures_util::future::join_all;
use tokio::{net::lookup_host, time::timeout};

use crate::{
    authorities::Authorities,
    aws,
    config::{Config, HttpTarget, LambdaTarget, Mirroring, Place, Target},
    destination::{self, IdTokens},
    finding::Finding,
    resolver::Resolver,
};

/// Time limit for a check.
pub const PATIENCE: Duration = Duration::from_secs(5);
/// A certificate that expires within this time causes a warning.
const SOON: chrono::TimeDelta = chrono::TimeDelta::days(30);

const AWS: &str = "AWS_REGION";
const CREDENTIALS: &str = "AWS credentials";

/// Services that may not answer, each with the remedy.
const SILENT_HOST: (&str, &str) =
    ("the DNS for the target's host", "correct this machine's name servers");
const SILENT_LAMBDA: (&str, &str) = (
    "the AWS settings or the DNS for the Lambda API",
    "correct the profile (AWS_PROFILE), or this machine's name servers",
);
const SILENT_AWS: (&str, &str) = (
    "a source of the AWS settings",
    "set AWS_REGION and credentials, or correct the profile (AWS_PROFILE)",
);
/// The remedies for a silent store: a file, and a service.
const SILENT_FILE: &str = "look at the disk";
const SILENT_SERVICE: &str =
    "correct its address, or open the network or the security group to this machine";

/// Checks what [`run`] checks, and asks for the ID tokens that the targets need.
pub async fn whole(config: &Config, store: impl Future<Output = Vec<Finding>>) -> Vec<Finding> {
    let (mut findings, id_tokens) = tokio::join!(run(config, store), id_tokens(config));
    findings.extend(id_tokens);
    findings
}

/// Logs the problems among findings, and their number.
pub fn log(findings: &[Finding]) {
    let problems = findings.iter().filter(|finding| finding.is_problem());
    let count = problems.inspect(|problem| tracing::warn!("{problem}")).count();
    tracing::info!(problems = count, "checked the services that the configuration names");
}

/// Checks the services that a configuration names. `store` returns the findings about its store.
pub async fn run(config: &Config, store: impl Future<Output = Vec<Finding>>) -> Vec<Finding> {
    let url = config.store.url.to_string();
    let silent_store = config.store.url.file().map_or(SILENT_SERVICE, |_| SILENT_FILE);
    let targets = config.targets.iter().map(|target| (target.setting.as_str(), &target.place));
    let mirrors = config.mirroring.iter().flat_map(Mirroring::common);
    let own_mirrors = config.targets.iter().filter_map(|target| {
        let mirror = target.mirror.as_ref().filter(|_| config.mirroring.is_some());
        Some((target.setting.as_str(), mirror?))
    });
    let (mut services, mut lambdas) = (own_mirrors.collect::<Vec<_>>(), Vec::new());
    for (setting, place) in targets.chain(mirrors) {
        match place {
            Place::Http(http) => services.push((setting, http)),
            Place::Lambda(lambda) => lambdas.push((setting, lambda)),
        }
    }
    let services = services
        .into_iter()
        .map(|(setting, http)| within(setting, SILENT_HOST, http_target(setting, http)));
    // The ARN of a function names its region. The name of a DynamoDB table does not.
    let regions = lambdas.iter().map(|(_, lambda)| lambda.region());
    let region = regions.reduce(|one, other| one.and(other)).flatten();
    let region = region.filter(|_| !config.store.url.uses_aws());
    let uses_aws = !lambdas.is_empty() || config.store.url.uses_aws();
    let lambdas = lambdas
        .into_iter()
        .map(|(setting, lambda)| within(setting, SILENT_LAMBDA, lambda_target(setting, lambda)));
    let (store, services, aws, lambdas) = tokio::join!(
        within("STORE_URL", (&url, silent_store), store),
        join_all(services),
        async {
            match uses_aws {
                true => within(AWS, SILENT_AWS, aws_settings(region)).await,
                false => Vec::new(),
            }
        },
        join_all(lambdas),
    );
    let http = || config.targets.iter().filter_map(|target| Some((target, target.http()?)));
    let files = http()
        .filter_map(|(target, http)| Some((setting_of(target, "GCP_CA_FILE"), http.ca.as_ref()?)));
    let files = config.store.url.authorities().into_iter().chain(files);
    let files = files.map(|(name, ca)| authorities(name, ca));
    let files = files.chain(http().filter_map(|(target, http)| {
        let name = setting_of(target, "GCP_CLIENT_CERT_FILE");
        let client = http.client_certificate.as_ref()?;
        Some(certificates(name, &client.path, client.count(), client.valid_until()))
    }));
    let targets = services.into_iter().flatten();
    let lambdas = lambdas.into_iter().flatten();
    store.into_iter().chain(files).chain(targets).chain(aws).chain(lambdas).collect()
}

/// Returns the findings, or a finding that reports the timeout of a service, with the remedy.
async fn within(
    subject: &str,
    (what, remedy): (&str, &str),
    looking: impl Future<Output = Vec<Finding>>,
) -> Vec<Finding> {
    timeout(PATIENCE, looking).await.unwrap_or_else(|_| {
        let text = format!("{what} did not answer within {} s: {remedy}", PATIENCE.as_secs());
        vec![Finding::error(subject, text)]
    })
}

/// Asks for an ID token as the first delivery does, for each target that needs one. `serve` leaves
/// this to its deliveries.
async fn id_tokens(config: &Config) -> Vec<Finding> {
    let targets = config.targets.iter().filter_map(|target| {
        let settings = target.http()?.id_token.clone()?;
        Some((setting_of(target, "GCP_AUTH"), settings))
    });
    let findings = targets.map(|(setting, settings)| async move {
        let audience = settings.audience.clone();
        match IdTokens::new(settings, PATIENCE).get().await {
            Ok(_) => Finding::ok(setting, format!("an ID token for {audience} was issued")),
            Err(reason) => Finding::error(setting, reason),
        }
    });
    join_all(findings).await
}

/// Returns `variable` if the target is set by variables, and otherwise the name of its table in
/// DESTINATIONS.
fn setting_of<'a>(target: &'a Target, variable: &'a str) -> &'a str {
    match target.setting.as_str() {
        "GCP_TARGET_URL" => variable,
        table => table,
    }
}

async fn http_target(setting: &str, target: &HttpTarget) -> Vec<Finding> {
    let (Some(host), Some(port)) = (target.url.host_str(), target.url.port_or_known_default())
    else {
        return Vec::new();
    };
    vec![resolved(setting, host, port, &Resolver::of_target(&target.url)).await]
}

async fn lambda_target(setting: &str, target: &LambdaTarget) -> Vec<Finding> {
    let sdk = aws::sdk_config().await;
    match destination::lambda_endpoint(target, sdk).await {
        Ok(url) => match (url.host_str(), url.port_or_known_default()) {
            (Some(host), Some(port)) => {
                vec![resolved(setting, host, port, &Resolver::open()).await]
            }
            _ => Vec::new(),
        },
        // `aws_settings` reports that the region is absent.
        Err(_) if target.region().is_none() && sdk.region().is_none() => Vec::new(),
        Err(error) => vec![Finding::error("AWS_ENDPOINT_URL_LAMBDA", error)],
    }
}

/// Looks for a region and for credentials. `region_of_target` is the region that the ARNs of the
/// targets name, if nothing needs another one. With it, a missing region is no error.
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
        Ok(addresses) if addresses.is_empty() => Finding::error(
            subject,
            format!("{host} has no address: correct the name, or give it an address"),
        ),
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
