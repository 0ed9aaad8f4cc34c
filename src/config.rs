//! Every variable that the router reads, its default and its check.
//!
//! Variables are read once, through a lookup function, and all problems are reported together.

use std::{fmt, path::PathBuf, time::Duration};

use chrono::TimeDelta;
use url::{Host, Url};

use crate::{
    secret::Secret,
    vendor::{VENDORS, Vendor},
};

/// The routing secret of the examples. Off Lambda it is the default, in Lambda it is refused.
pub const EXAMPLE_ROUTING_SECRET: &str = "dev-not-for-prod-change-me";
/// Fewest bytes of a routing secret in Lambda.
pub const MIN_ROUTING_SECRET_BYTES: usize = 16;

/// A variable, for `--help` and the README.
pub struct Variable {
    pub name: &'static str,
    pub default: &'static str,
    pub meaning: &'static str,
}

const fn variable(name: &'static str, default: &'static str, meaning: &'static str) -> Variable {
    Variable { name, default, meaning }
}

/// All variables, in the order in which one meets them.
#[rustfmt::skip]
pub const VARIABLES: &[Variable] = &[
    variable("ROUTING_SECRET", "dev-not-for-prod-change-me, refused in Lambda",
        "Secret behind keys and routes, the same in every router; at least 16 bytes in Lambda."),
    variable("ROUTE_THRESHOLD", "128",
        "Events whose route byte (0 to 255) is below this go to gcp, the others to aws: 0 to 256."),
    variable("ENVELOPE_SECRETS", "",
        "Standard Webhooks secrets of POST /webhook, separated by commas; any may match."),
    variable("ALLOW_UNSIGNED", "false",
        "true: serve POST /webhook although ENVELOPE_SECRETS is not set."),
    variable("SIGNATURE_TOLERANCE_SECONDS", "300",
        "How far a signature's timestamp may lie from now, on either side."),
    variable("MAX_BODY_BYTES", "6291456",
        "Largest body that is read (6 MiB); larger ones are answered with 413."),
    variable("STORE_URL", "sqlite:webhook-router.db, none in Lambda",
        "Where claims and dead letters are kept: sqlite:PATH, dynamodb://TABLE, redis:// or rediss://, with ?cluster=true for a cluster."),
    variable("REDIS_URL", "",
        "The same for a Redis, taken when STORE_URL is not set."),
    variable("REDIS_CA_FILE", "",
        "PEM file of the CA that a rediss:// certificate comes from; without it, public and system roots are trusted."),
    variable("STORE_TIMEOUT_MS", "1000",
        "Time for one operation of the store."),
    variable("DEDUP_TTL_SECONDS", "86400",
        "How long a delivered event is remembered."),
    variable("GCP_TARGET_URL", "",
        "URL of the Cloud Run service that gcp events are posted to; https, or http on loopback."),
    variable("GCP_CA_FILE", "",
        "PEM file of a private CA that GCP_TARGET_URL's certificate may come from, beside the public ones."),
    variable("AWS_TARGET_FUNCTION", "",
        "Name or ARN of the processor Lambda that aws events are handed to."),
    variable("AWS_TARGET_ROLE_ARN", "",
        "Role to assume for invoking it, across accounts."),
    variable("AWS_TARGET_INVOCATION", "RequestResponse",
        "RequestResponse waits for its answer; Event queues the event in Lambda."),
    variable("FORWARD_TIMEOUT_MS", "10000",
        "Time for one attempt."),
    variable("FORWARD_BUDGET_MS", "30000",
        "Time for all attempts of a delivery in serve. In Lambda the invocation's remaining time decides."),
    variable("PORT", "",
        "serve listens on this port of all addresses, as Cloud Run asks for."),
    variable("RUST_LOG", "info",
        "What is logged: error, warn, info, debug or trace, also by module."),
    variable("LAMBDA_EMULATOR", "false",
        "true: the Lambda runtime is an emulator on one machine, so sqlite: and the example secret may be used."),
];

/// All settings, checked.
#[derive(Debug, Clone)]
pub struct Config {
    pub intake: Intake,
    pub store: StoreConfig,
    pub targets: Targets,
    pub forward: Forward,
    /// How long a delivered event is remembered.
    pub dedup_ttl: Duration,
    /// The port that `serve` shall listen on.
    pub port: Option<u16>,
}

/// What the plan of a delivery depends on, beside the delivery and the clock.
#[derive(Debug, Clone)]
pub struct Intake {
    pub routing_secret: Secret,
    /// 0 to 256.
    pub route_threshold: u16,
    pub max_body_bytes: usize,
    pub allow_unsigned: bool,
    pub signature_tolerance: TimeDelta,
    /// By the name of the vendor.
    secrets: Vec<(&'static str, Vec<Secret>)>,
}

#[derive(Debug, Clone)]
pub struct StoreConfig {
    pub url: StoreUrl,
    /// Time for one operation.
    pub timeout: Duration,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoreUrl {
    Sqlite(PathBuf),
    Redis(RedisUrl),
    DynamoDb { table: String },
}

/// Where a Redis is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RedisUrl {
    /// `redis://` or `rediss://`, with user, password and database number; without the options
    /// that are ours.
    pub url: Secret,
    /// Whether to speak the protocol of a cluster.
    pub cluster: bool,
    /// A private CA that the server's certificate comes from, in place of public and system roots.
    pub ca_file: Option<PathBuf>,
}

impl RedisUrl {
    pub fn is_tls(&self) -> bool {
        self.url.expose().starts_with("rediss:")
    }
}

/// Where events are delivered to. A destination that no event can be routed to may be absent.
#[derive(Debug, Clone)]
pub struct Targets {
    pub gcp: Option<GcpTarget>,
    pub aws: Option<AwsTarget>,
}

#[derive(Debug, Clone)]
pub struct GcpTarget {
    pub url: Url,
    pub ca_file: Option<PathBuf>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AwsTarget {
    /// Name, partial ARN or ARN.
    pub function: String,
    pub role_arn: Option<String>,
    pub invocation: Invocation,
}

/// The invocation types of the Lambda API
/// (<https://docs.aws.amazon.com/lambda/latest/api/API_Invoke.html>).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Invocation {
    RequestResponse,
    Event,
}

/// How long forwarding may take.
#[derive(Debug, Clone, Copy)]
pub struct Forward {
    /// For one attempt.
    pub timeout: Duration,
    /// For all attempts of a delivery, outside Lambda.
    pub budget: Duration,
}

/// All that is wrong with the variables.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigErrors(pub Vec<ConfigError>);

/// A variable and what must be done about it. Values are not repeated: they may be secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    pub variable: String,
    pub remedy: String,
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the configuration cannot be used:")?;
        for ConfigError { variable, remedy } in &self.0 {
            write!(f, "\n  {variable}: {remedy}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigErrors {}

impl Config {
    /// Reads all variables; a variable that is set to nothing counts as not set.
    ///
    /// # Errors
    /// Every problem there is, not only the first.
    pub fn from_vars(get: impl Fn(&str) -> Option<String>) -> Result<Self, ConfigErrors> {
        let mut vars = Vars::new(&get);
        let intake = vars.intake();
        let config = Self {
            store: vars.store(),
            targets: vars.targets(intake.route_threshold),
            forward: Forward {
                timeout: vars.millis("FORWARD_TIMEOUT_MS"),
                budget: vars.millis("FORWARD_BUDGET_MS"),
            },
            dedup_ttl: Duration::from_secs(vars.number("DEDUP_TTL_SECONDS", 1..=31_536_000)),
            port: vars.text("PORT").map(|_| vars.number("PORT", 0..=65_535) as u16),
            intake,
        };
        vars.finish(config)
    }
}

impl StoreConfig {
    /// Reads only the variables that name the store.
    ///
    /// # Errors
    /// Every problem there is, not only the first.
    pub fn from_vars(get: impl Fn(&str) -> Option<String>) -> Result<Self, ConfigErrors> {
        let mut vars = Vars::new(&get);
        let store = vars.store();
        vars.finish(store)
    }
}

impl Intake {
    /// Reads only the variables that a plan depends on.
    ///
    /// # Errors
    /// Every problem there is, not only the first.
    pub fn from_vars(get: impl Fn(&str) -> Option<String>) -> Result<Self, ConfigErrors> {
        let mut vars = Vars::new(&get);
        let intake = vars.intake();
        vars.finish(intake)
    }

    /// What is not served, and which variable would change that.
    pub fn not_served(&self) -> Vec<String> {
        VENDORS
            .iter()
            .filter(|vendor| self.secrets(**vendor).is_empty())
            .filter(|vendor| !(vendor.may_be_unsigned() && self.allow_unsigned))
            .map(|vendor| {
                let unsigned =
                    if vendor.may_be_unsigned() { ", or ALLOW_UNSIGNED=true" } else { "" };
                let (path, variable) = (vendor.path(), vendor.secrets_variable());
                format!("POST {path} is not served: set {variable}{unsigned}")
            })
            .collect()
    }

    /// The vendor's secrets; none when it is not configured.
    pub fn secrets(&self, vendor: &dyn Vendor) -> &[Secret] {
        let found = self.secrets.iter().find(|(name, _)| *name == vendor.name());
        found.map_or(&[], |(_, secrets)| secrets)
    }
}

/// The variables while they are read, and the problems found so far.
struct Vars<'a> {
    get: &'a dyn Fn(&str) -> Option<String>,
    /// Whether this is the real Lambda, whose disk is not shared and whose URL is public.
    in_lambda: bool,
    errors: Vec<ConfigError>,
}

impl<'a> Vars<'a> {
    fn new(get: &'a dyn Fn(&str) -> Option<String>) -> Self {
        let mut vars = Self { get, in_lambda: false, errors: Vec::new() };
        let emulated = vars.flag("LAMBDA_EMULATOR");
        vars.in_lambda = vars.text("AWS_LAMBDA_RUNTIME_API").is_some() && !emulated;
        for Variable { name, .. } in VARIABLES {
            if vars.text(name).is_some_and(|text| text.contains(char::REPLACEMENT_CHARACTER)) {
                vars.problem(name, "is not valid UTF-8");
            }
        }
        vars
    }

    fn finish<T>(self, value: T) -> Result<T, ConfigErrors> {
        if self.errors.is_empty() { Ok(value) } else { Err(ConfigErrors(self.errors)) }
    }

    fn problem(&mut self, variable: &str, remedy: impl Into<String>) {
        self.errors.push(ConfigError { variable: variable.into(), remedy: remedy.into() });
    }

    fn text(&self, name: &str) -> Option<String> {
        (self.get)(name).filter(|value| !value.is_empty())
    }

    /// A number in its range; the default is the one in [`VARIABLES`].
    fn number(&mut self, name: &str, range: std::ops::RangeInclusive<u64>) -> u64 {
        let default = VARIABLES.iter().find(|variable| variable.name == name);
        let default = default.and_then(|variable| variable.default.parse().ok());
        let default = default.unwrap_or(*range.start());
        let given = self.text(name).map(|text| text.parse().ok());
        match given {
            Some(Some(number)) if range.contains(&number) => number,
            Some(_) => {
                let (least, most) = range.clone().into_inner();
                self.problem(name, format!("must be a whole number from {least} to {most}"));
                default
            }
            None => default,
        }
    }

    fn millis(&mut self, name: &str) -> Duration {
        Duration::from_millis(self.number(name, 1..=900_000))
    }

    fn flag(&mut self, name: &str) -> bool {
        match self.text(name).as_deref() {
            Some("true") => true,
            Some("false") | None => false,
            Some(_) => {
                self.problem(name, "must be true or false");
                false
            }
        }
    }

    fn intake(&mut self) -> Intake {
        Intake {
            routing_secret: self.routing_secret(),
            route_threshold: self.number("ROUTE_THRESHOLD", 0..=256) as u16,
            max_body_bytes: self.number("MAX_BODY_BYTES", 1..=268_435_456) as usize,
            allow_unsigned: self.flag("ALLOW_UNSIGNED"),
            signature_tolerance: TimeDelta::seconds(
                self.number("SIGNATURE_TOLERANCE_SECONDS", 1..=86_400) as i64,
            ),
            secrets: VENDORS.iter().map(|vendor| (vendor.name(), self.secrets(*vendor))).collect(),
        }
    }

    fn routing_secret(&mut self) -> Secret {
        const NAME: &str = "ROUTING_SECRET";
        let secret = self.text(NAME);
        if self.in_lambda {
            match secret.as_deref() {
                None => self.problem(NAME, "must be set; `openssl rand -hex 32` makes one"),
                Some(EXAMPLE_ROUTING_SECRET) => self.problem(
                    NAME,
                    "must not be the secret of the examples; `openssl rand -hex 32` makes one",
                ),
                Some(short) if short.len() < MIN_ROUTING_SECRET_BYTES => self
                    .problem(NAME, format!("must have at least {MIN_ROUTING_SECRET_BYTES} bytes")),
                Some(_) => {}
            }
        }
        Secret::new(secret.unwrap_or_else(|| EXAMPLE_ROUTING_SECRET.into()))
    }

    fn secrets(&mut self, vendor: &dyn Vendor) -> Vec<Secret> {
        let name = vendor.secrets_variable();
        let Some(list) = self.text(&name) else {
            return Vec::new();
        };
        let secrets: Vec<_> = list.split(',').map(|secret| Secret::new(secret.trim())).collect();
        if let Some(problem) = secrets.iter().find_map(|secret| vendor.check_secret(secret).err()) {
            self.problem(&name, format!("each secret {problem}"));
        }
        secrets
    }

    fn store(&mut self) -> StoreConfig {
        StoreConfig { url: self.store_url(), timeout: self.millis("STORE_TIMEOUT_MS") }
    }

    fn store_url(&mut self) -> StoreUrl {
        const NOWHERE: StoreUrl = StoreUrl::Sqlite(PathBuf::new());
        let given = ["STORE_URL", "REDIS_URL"]
            .into_iter()
            .find_map(|name| self.text(name).map(|text| (name, text)));
        let Some((name, url)) = given else {
            if self.in_lambda {
                self.problem("STORE_URL", "must be set: dynamodb://TABLE, redis:// or rediss://");
                return NOWHERE;
            }
            return StoreUrl::Sqlite("webhook-router.db".into());
        };
        match self.parse_store_url(&url, name) {
            Ok(url) => url,
            Err(remedy) => {
                self.problem(name, remedy);
                NOWHERE
            }
        }
    }

    fn parse_store_url(&self, url: &str, name: &str) -> Result<StoreUrl, &'static str> {
        if let Some(path) = url.strip_prefix("sqlite:").filter(|_| name == "STORE_URL") {
            return match path {
                _ if path.is_empty() || path.starts_with(":memory:") => {
                    Err("names no file: use sqlite:PATH")
                }
                _ if path.starts_with("//") => {
                    Err("takes no slashes before the path: sqlite:/var/lib/router.db")
                }
                _ if self.in_lambda => {
                    Err("sqlite: cannot be used in Lambda, whose instances share no disk \
                         (an emulator on one machine is declared with LAMBDA_EMULATOR=true)")
                }
                path => Ok(StoreUrl::Sqlite(path.into())),
            };
        }
        if let Some(table) = url.strip_prefix("dynamodb://").filter(|_| name == "STORE_URL") {
            // https://docs.aws.amazon.com/amazondynamodb/latest/APIReference/API_CreateTable.html
            let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
            return if (3..=255).contains(&table.len()) && table.bytes().all(is_name) {
                Ok(StoreUrl::DynamoDb { table: table.into() })
            } else {
                Err("names no table: dynamodb://TABLE, 3 to 255 letters, digits, `_`, `.` or `-`")
            };
        }
        match Url::parse(url) {
            Ok(url) if matches!(url.scheme(), "redis" | "rediss") => {
                redis_url(url, self.text("REDIS_CA_FILE").map(PathBuf::from)).map(StoreUrl::Redis)
            }
            _ if name == "REDIS_URL" => Err("must be redis:// or rediss://"),
            _ => Err("is no store: use dynamodb://TABLE, redis://, rediss:// or sqlite:PATH"),
        }
    }

    fn targets(&mut self, threshold: u16) -> Targets {
        let gcp = self.gcp_target();
        let aws = self.aws_target();
        if gcp.is_none() && threshold > 0 && self.text("GCP_TARGET_URL").is_none() {
            self.problem(
                "GCP_TARGET_URL",
                "must be set to the Cloud Run service's URL (or ROUTE_THRESHOLD to 0)",
            );
        }
        if aws.is_none() && threshold < 256 && self.text("AWS_TARGET_FUNCTION").is_none() {
            self.problem(
                "AWS_TARGET_FUNCTION",
                "must be set to the processor Lambda's name or ARN (or ROUTE_THRESHOLD to 256)",
            );
        }
        Targets { gcp, aws }
    }

    fn gcp_target(&mut self) -> Option<GcpTarget> {
        const NAME: &str = "GCP_TARGET_URL";
        let ca_file = self.text("GCP_CA_FILE").map(PathBuf::from);
        let url = Url::parse(&self.text(NAME)?).ok();
        match url {
            Some(url)
                if url.scheme() == "https" || (url.scheme() == "http" && is_loopback(&url)) =>
            {
                Some(GcpTarget { url, ca_file })
            }
            _ => {
                self.problem(NAME, "must be an https:// URL (http:// is allowed on loopback)");
                None
            }
        }
    }

    fn aws_target(&mut self) -> Option<AwsTarget> {
        let invocation = match self.text("AWS_TARGET_INVOCATION").as_deref() {
            Some("RequestResponse") | None => Invocation::RequestResponse,
            Some("Event") => Invocation::Event,
            Some(_) => {
                self.problem("AWS_TARGET_INVOCATION", "must be RequestResponse or Event");
                Invocation::RequestResponse
            }
        };
        let role_arn = self.text("AWS_TARGET_ROLE_ARN");
        if role_arn.as_ref().is_some_and(|arn| !arn.starts_with("arn:")) {
            self.problem("AWS_TARGET_ROLE_ARN", "must be an ARN: arn:aws:iam::ACCOUNT:role/NAME");
        }
        let function = self.text("AWS_TARGET_FUNCTION")?;
        if role_arn.is_none() && self.is_this_function(&function) {
            self.problem(
                "AWS_TARGET_FUNCTION",
                "is this function (AWS_LAMBDA_FUNCTION_NAME), which would call itself for ever: \
                 name the processor",
            );
        }
        Some(AwsTarget { function, role_arn, invocation })
    }

    /// Whether a name, `NAME:QUALIFIER`, partial ARN or ARN means the function that this is.
    fn is_this_function(&self, target: &str) -> bool {
        let parts: Vec<_> = target.split(':').collect();
        let (name, region) = match parts.iter().position(|part| *part == "function") {
            Some(at) => (parts.get(at + 1), at.checked_sub(2).and_then(|at| parts.get(at))),
            None => (parts.first(), None),
        };
        let here = |part: Option<&&str>, variable| {
            part.is_some_and(|part| self.text(variable).is_some_and(|value| value == *part))
        };
        here(name, "AWS_LAMBDA_FUNCTION_NAME") && (region.is_none() || here(region, "AWS_REGION"))
    }
}

fn redis_url(mut url: Url, ca_file: Option<PathBuf>) -> Result<RedisUrl, &'static str> {
    if url.host_str().is_none_or(str::is_empty) {
        return Err("names no host: redis://HOST:PORT");
    }
    let mut cluster = false;
    for (name, value) in url.query_pairs() {
        cluster = match (&*name, &*value) {
            ("cluster", "true") => true,
            ("cluster", "false") => false,
            _ => return Err("takes no option but ?cluster=true"),
        };
    }
    url.set_query(None);
    let database = url.path().trim_start_matches('/');
    match database.parse::<u32>() {
        Ok(number) if cluster && number > 0 => Err("takes no database number in a cluster"),
        Err(_) if !database.is_empty() => Err("takes a database number as its path: /0"),
        _ => Ok(RedisUrl { url: Secret::new(url), cluster, ca_file }),
    }
}

fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}
