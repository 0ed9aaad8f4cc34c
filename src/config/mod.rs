//! Every variable that the router reads, its default and its check.
//!
//! Variables are read once, through a lookup function, and all problems are reported together.

mod log;
mod sources;
mod store;
mod targets;
mod vars;

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use chrono::TimeDelta;
use serde::Serialize;

use self::vars::Vars;
pub use self::{
    log::{LOG, log_filter},
    store::{RedisUrl, StoreConfig, StoreUrl},
    targets::{AwsTarget, GcpTarget, Invocation, Payload, Targets},
};
use crate::{
    delivery::Reply,
    finding::Finding,
    secret::Secret,
    source::{Certificate, Sources, envelope},
};

const ROUTING_SECRET: &str = "ROUTING_SECRET";
/// The routing secret of the examples. It is the default, and refused in Lambda and by `serve` on
/// other than loopback.
pub const EXAMPLE_ROUTING_SECRET: &str = "dev-not-for-prod-change-me";
/// Fewest bytes of a routing secret where the example's is refused.
const MIN_ROUTING_SECRET_BYTES: usize = 16;

/// Largest REDRIVE_LIMIT: the redrives are counted in the attempts that a record keeps.
pub const MAX_REDRIVE_LIMIT: u32 = 20;

/// A variable, for `webhook-router variables` and docs/configuration.md.
#[derive(Serialize)]
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
    variable("ROUTING_SECRET", "dev-not-for-prod-change-me, refused in Lambda and by serve on other than loopback",
        "Secret behind keys and routes, the same in every router; at least 16 bytes where the default is refused."),
    variable("ROUTING_SECRET_PREVIOUS", "",
        "The secret before a rotation: what was claimed or delivered under it is still known. Costs a lookup for each event."),
    variable("SECRETS_ARN", "",
        "ARN or name of a Secrets Manager secret: a JSON object of these same variables, read once at start. Environment variables override the secret's values."),
    variable("ROUTE_THRESHOLD", "128",
        "Events whose route byte (0 to 255) is below this go to gcp, the others to aws: 0 to 256."),
    variable("ENVELOPE_SECRETS", "",
        "Standard Webhooks secrets of POST /webhook, separated by commas; any may match."),
    variable("<VENDOR>_SECRETS", "",
        "What a vendor signs with, separated by commas; any may match. STRIPE_SECRETS makes the source stripe at POST /webhook/stripe, STANDARD_WEBHOOKS_SECRETS the source standard-webhooks, and so on."),
    variable("SOURCES", "",
        "More sources, and rules for them, as TOML: see docs/sources.md."),
    variable("SOURCES_FILE", "",
        "File that holds what SOURCES would."),
    variable("PUBLIC_URL", "",
        "Origin and optional prefix of the addresses that vendors call, for vendors that sign them (Square, Twilio): https://hooks.example.com."),
    variable("PAYPAL_CERT_FILE", "",
        "PEM file of the certificate that PayPal signs with; without it, the certificate is fetched from PayPal."),
    variable("ALLOW_UNSIGNED", "false",
        "true: take unsigned envelopes from anyone while ENVELOPE_SECRETS is not set. serve on loopback takes them from programs on the same machine without it."),
    variable("SIGNATURE_TOLERANCE_SECONDS", "300",
        "How far a signature's timestamp may lie from now, on either side."),
    variable("TRUST_IDEMPOTENCY_HEADER", "false",
        "true: an envelope's Idempotency-Key (or X-Idempotency-Key) header takes the event's place in its key; with ENVELOPE_SECRETS, the signed webhook-id does."),
    variable("MAX_BODY_BYTES", "6291456",
        "Largest body that is read (6 MiB); larger ones are answered with 413."),
    variable("MAX_CONNECTIONS", "4096",
        "Most connections that serve has at a time; beyond them it answers 503, and GET /healthz. Fewer where the limit of open files says so."),
    variable("MAX_BUFFERED_BYTES", "50331648",
        "Most bytes of bodies and replies that serve holds at a time (48 MiB), at least MAX_BODY_BYTES; beyond them the slowest body is dropped with 408, or a new one answered with 503."),
    variable("STORE_URL", "sqlite:webhook-router.db, none in Lambda",
        "Where claims and dead letters are kept: sqlite:PATH, dynamodb://TABLE, redis:// or rediss://, with ?cluster=true for a cluster."),
    variable("REDIS_URL", "",
        "The same for a Redis, taken when STORE_URL is not set."),
    variable("REDIS_CA_FILE", "",
        "PEM file of the CA that a rediss:// certificate comes from; without it, public and system roots are trusted."),
    variable("STORE_TIMEOUT_MS", "1000",
        "Time for one operation of the store."),
    variable("DEDUP_TTL_SECONDS", "86400",
        "How long a delivered event is remembered; longer for a vendor that retries longer (Stripe: 3 days)."),
    variable("DUPLICATE_REPLY", "ignored",
        "What a duplicate is answered: ignored says `duplicate ignored`, replay repeats the first reply."),
    variable("REPLY_KEEP_BYTES", "65536",
        "Largest reply that is kept (64 KiB) with DUPLICATE_REPLY=replay; a duplicate of a larger one gets `duplicate ignored`."),
    variable("GCP_TARGET_URL", "",
        "URL of the Cloud Run service that gcp events are posted to; https, or http on loopback."),
    variable("GCP_CA_FILE", "",
        "PEM file of a private CA that GCP_TARGET_URL's certificate may come from, beside the public ones."),
    variable("AWS_TARGET_FUNCTION", "",
        "Name or ARN of the processor Lambda that aws events are handed to."),
    variable("AWS_TARGET_ROLE_ARN", "",
        "Role to assume for invoking it, across accounts."),
    variable("AWS_TARGET_INVOCATION", "RequestResponse",
        "RequestResponse waits for its answer; Event queues the event in Lambda, and needs AWS_TARGET_PAYLOAD=request."),
    variable("AWS_TARGET_PAYLOAD", "body",
        "body: it is handed the exact bytes; request: a Function URL's event (format 2.0) with them. A body that is not JSON always goes as request."),
    variable("FORWARD_ATTEMPTS", "4",
        "Most attempts of one delivery."),
    variable("FORWARD_BACKOFF_MS", "1000",
        "Longest pause before the second attempt; doubled for each one after it, up to 60 s. The pause is random (full jitter)."),
    variable("FORWARD_TIMEOUT_MS", "10000",
        "Time for one attempt. After the first, none is begun that has less."),
    variable("FORWARD_BUDGET_MS", "30000",
        "Time for all attempts of a delivery in serve and replay. In Lambda the invocation's remaining time decides."),
    variable("REDRIVE_LIMIT", "20",
        "In Lambda, a dead letter whose last so many redrives ended in an answer that will not change (a 4xx, say) is left to the operator: 1 to 20."),
    variable("PORT", "",
        "serve listens on this port of all addresses, as Cloud Run asks for."),
    variable("METRICS_LISTEN", "127.0.0.1:9464",
        "Where serve answers GET /metrics for Prometheus; off: nowhere."),
    variable("RUST_LOG", "info",
        "What is logged: error, warn, info, debug, trace or off, also by module: warn,webhook_router=debug."),
    variable("LAMBDA_EMULATOR", "false",
        "true: the Lambda runtime is an emulator on one machine, so sqlite: and the example secret may be used."),
];

/// Whether a variable of that name is read.
pub fn is_variable(name: &str) -> bool {
    // Those of the vendors, and those that a source's `secrets_from` names.
    let is_allowed = |byte: u8| matches!(byte, b'A'..=b'Z' | b'0'..=b'9' | b'_');
    // ROUTING_SECRETS would be a slip for ROUTING_SECRET, and leave it unset.
    let is_slip = name == format!("{ROUTING_SECRET}S");
    let holds_secrets = || name.ends_with("_SECRETS") && name.bytes().all(is_allowed) && !is_slip;
    VARIABLES.iter().any(|variable| variable.name == name) || holds_secrets()
}

/// All settings, checked.
#[derive(Debug, Clone)]
pub struct Config {
    pub intake: Intake,
    pub store: StoreConfig,
    pub targets: Targets,
    pub forward: Forward,
    /// How long a delivered event is remembered, at least.
    pub dedup_ttl: Duration,
    pub duplicates: Duplicates,
    /// Redrives in a row with an answer that will not change, after which a dead letter is left to
    /// the operator.
    pub redrive_limit: u32,
    pub serving: Serving,
    /// The port that `serve` shall listen on.
    pub port: Option<u16>,
    pub metrics: MetricsListen,
    /// Whether the Lambda runtime is an emulator, which may not know when an invocation must end.
    pub is_emulated: bool,
    /// What may be meant otherwise than it is.
    pub doubts: Vec<Finding>,
}

/// What the plan of a delivery depends on, beside the delivery and the clock.
#[derive(Debug, Clone)]
pub struct Intake {
    pub routing_secret: Secret,
    /// The one before a rotation, whose keys are still looked up.
    pub previous_routing_secret: Option<Secret>,
    /// 0 to 256.
    pub route_threshold: u16,
    pub max_body_bytes: usize,
    pub unsigned: Unsigned,
    /// Whether an envelope's `Idempotency-Key` takes the event's place in the key.
    pub trust_idempotency_header: bool,
    pub signature_tolerance: TimeDelta,
    /// Those of the envelope.
    pub envelope_secrets: Vec<Secret>,
    pub sources: Sources,
    /// The certificate that PayPal signs with, where it is not fetched.
    pub paypal_certificate: Option<Arc<Certificate>>,
}

/// Whose unsigned envelopes are taken while ENVELOPE_SECRETS is not set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unsigned {
    Refused,
    /// Taken from programs on this machine, which is all that `serve` on loopback is for.
    FromThisMachine,
    /// Taken from everyone: ALLOW_UNSIGNED=true.
    FromAnyone,
}

/// What `serve` takes at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Serving {
    pub max_connections: usize,
    /// Most bytes of bodies and replies, over all connections.
    pub max_buffered_bytes: usize,
}

/// Where `serve` shows its metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MetricsListen {
    Off,
    /// At the default address, unless somebody else is there.
    Default,
    At(SocketAddr),
}

impl MetricsListen {
    pub const DEFAULT: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9464);
}

/// How duplicates are answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Duplicates {
    /// Whether they get the first reply.
    pub replay: bool,
    /// Largest reply that is kept, in bytes.
    pub reply_keep_bytes: usize,
}

impl Duplicates {
    /// Whether a reply is kept with its record: only for duplicates that get it, because each store
    /// charges for its bytes, DynamoDB for every duplicate again.
    pub fn keeps(&self, reply: &Reply) -> bool {
        self.replay && reply.body.len() <= self.reply_keep_bytes
    }
}

/// How often and how long forwarding is tried.
#[derive(Debug, Clone, Copy)]
pub struct Forward {
    /// Most attempts of a delivery.
    pub attempts: u32,
    /// Longest pause before the second attempt; it doubles for each one after it.
    pub backoff: Duration,
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

impl From<ConfigError> for Finding {
    fn from(ConfigError { variable, remedy }: ConfigError) -> Self {
        Self::error(variable, remedy)
    }
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
        let (config, problems) = Self::read(get);
        if problems.is_empty() { Ok(config) } else { Err(ConfigErrors(problems)) }
    }

    /// Reads all variables, and names every problem. A setting that has one is a placeholder.
    pub fn read(get: impl Fn(&str) -> Option<String>) -> (Self, Vec<ConfigError>) {
        let mut vars = Vars::new(&get);
        let intake = vars.intake();
        let targets = vars.targets(intake.route_threshold);
        vars.check_sources(&intake.sources, &targets);
        let mut config = Self {
            store: vars.store(),
            targets,
            forward: vars.forward(),
            dedup_ttl: Duration::from_secs(vars.number("DEDUP_TTL_SECONDS", 1..=31_536_000)),
            duplicates: Duplicates {
                replay: vars.choice("DUPLICATE_REPLY", "ignored", &["ignored", "replay"])
                    == "replay",
                reply_keep_bytes: vars.number("REPLY_KEEP_BYTES", 0..=262_144) as usize,
            },
            redrive_limit: vars.number("REDRIVE_LIMIT", 1..=MAX_REDRIVE_LIMIT.into()) as u32,
            serving: vars.serving(intake.max_body_bytes),
            metrics: vars.metrics(),
            is_emulated: vars.is_emulated,
            port: vars.text("PORT").map(|_| vars.number("PORT", 0..=65_535) as u16),
            intake,
            doubts: Vec::new(),
        };
        config.doubts = vars.warnings;
        (config, vars.errors)
    }

    /// Returns what an operator should know at start, as far as the variables tell it.
    pub fn warnings(&self) -> Vec<Finding> {
        [self.doubts.clone(), self.intake.warnings()].concat()
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

    /// Returns what an operator should know at start: what is not served and which variable changes
    /// that, what is served unsigned, and whether the routing secret is everybody's.
    pub fn warnings(&self) -> Vec<Finding> {
        let (path, variable) = (envelope::PATH, envelope::SECRETS);
        let unsigned = match self.unsigned {
            _ if !self.envelope_secrets.is_empty() => None,
            Unsigned::FromThisMachine => Some(format!(
                "POST {path} takes unsigned envelopes from programs on this machine: set \
                 {variable} to have them signed"
            )),
            Unsigned::FromAnyone => Some(format!(
                "POST {path} takes unsigned envelopes from anyone (ALLOW_UNSIGNED): set \
                 {variable} to have them signed"
            )),
            Unsigned::Refused => {
                Some(format!("POST {path} is not served: set {variable}, or ALLOW_UNSIGNED=true"))
            }
        };
        let unsigned = unsigned.map(|text| Finding::warning(variable, text));
        let idle = self.sources.iter().filter(|source| !source.is_served());
        let idle = idle.map(|source| {
            let text = format!("POST {} is not served: set {}", source.path(), source.secrets_from);
            Finding::warning(&source.secrets_from, text)
        });
        let example = (self.routing_secret.expose() == EXAMPLE_ROUTING_SECRET).then(|| {
            let text = "is the example's: set one of your own before production";
            Finding::warning(ROUTING_SECRET, text)
        });
        unsigned.into_iter().chain(idle).chain(example).collect()
    }

    /// Returns what keeps the routing secret from being used where others than this machine's users
    /// send.
    pub fn own_secret_problem(&self) -> Option<ConfigError> {
        let remedy = routing_secret_problem(self.routing_secret.expose())?;
        Some(ConfigError { variable: ROUTING_SECRET.into(), remedy })
    }
}

/// Returns what must be done about a routing secret that strangers could guess.
fn routing_secret_problem(secret: &str) -> Option<String> {
    if secret == EXAMPLE_ROUTING_SECRET {
        let remedy = "must be set, and not to the secret of the examples; \
                      `openssl rand -hex 32` makes one";
        return Some(remedy.into());
    }
    (secret.len() < MIN_ROUTING_SECRET_BYTES)
        .then(|| format!("must have at least {MIN_ROUTING_SECRET_BYTES} bytes"))
}

impl Vars<'_> {
    fn intake(&mut self) -> Intake {
        Intake {
            routing_secret: self.routing_secret(),
            previous_routing_secret: self.previous_routing_secret(),
            route_threshold: self.number("ROUTE_THRESHOLD", 0..=256) as u16,
            max_body_bytes: self.number("MAX_BODY_BYTES", 1..=268_435_456) as usize,
            unsigned: match self.flag("ALLOW_UNSIGNED") {
                true => Unsigned::FromAnyone,
                false => Unsigned::Refused,
            },
            trust_idempotency_header: self.flag("TRUST_IDEMPOTENCY_HEADER"),
            signature_tolerance: TimeDelta::seconds(
                self.number("SIGNATURE_TOLERANCE_SECONDS", 1..=86_400) as i64,
            ),
            envelope_secrets: self.envelope_secrets(),
            sources: self.sources(),
            paypal_certificate: self.paypal_certificate(),
        }
    }

    fn forward(&mut self) -> Forward {
        let (timeout, budget) =
            (self.millis("FORWARD_TIMEOUT_MS"), self.millis("FORWARD_BUDGET_MS"));
        // In Lambda, the invocation's remaining time is the budget.
        if timeout > budget && !self.in_lambda {
            self.warning(
                "FORWARD_TIMEOUT_MS",
                format!(
                    "{} is more than FORWARD_BUDGET_MS, {}, which ends an attempt sooner, and \
                     leaves no time for a second one: set it below that",
                    timeout.as_millis(),
                    budget.as_millis()
                ),
            );
        }
        Forward {
            attempts: self.number("FORWARD_ATTEMPTS", 1..=20) as u32,
            backoff: self.millis("FORWARD_BACKOFF_MS"),
            timeout,
            budget,
        }
    }

    fn serving(&mut self, max_body_bytes: usize) -> Serving {
        const NAME: &str = "MAX_BUFFERED_BYTES";
        let bytes = self.number(NAME, 1..=1 << 40) as usize;
        if bytes < max_body_bytes && self.text(NAME).is_some() {
            self.problem(NAME, "must be at least MAX_BODY_BYTES");
        }
        Serving {
            max_connections: self.number("MAX_CONNECTIONS", 1..=1_000_000) as usize,
            // Its default grows with the largest body.
            max_buffered_bytes: bytes.max(max_body_bytes),
        }
    }

    fn metrics(&mut self) -> MetricsListen {
        const NAME: &str = "METRICS_LISTEN";
        match self.text(NAME).as_deref().map(|text| (text, text.parse())) {
            None => MetricsListen::Default,
            Some(("off", _)) => MetricsListen::Off,
            Some((_, Ok(address))) => MetricsListen::At(address),
            Some((_, Err(_))) => {
                self.problem(NAME, "must be off, or address and port: 127.0.0.1:9464");
                MetricsListen::Off
            }
        }
    }

    fn routing_secret(&mut self) -> Secret {
        if self.is_blank(ROUTING_SECRET) {
            let remedy = "is set to nothing, which the example's secret would take the place of: \
                          set it to one of your own (`openssl rand -hex 32` makes one), or unset it \
                          for a try on loopback";
            self.problem(ROUTING_SECRET, remedy);
            return Secret::new(EXAMPLE_ROUTING_SECRET);
        }
        let secret = self.text(ROUTING_SECRET).unwrap_or_else(|| EXAMPLE_ROUTING_SECRET.into());
        if self.in_lambda
            && let Some(remedy) = routing_secret_problem(&secret)
        {
            self.problem(ROUTING_SECRET, remedy);
        }
        Secret::new(secret)
    }

    fn previous_routing_secret(&mut self) -> Option<Secret> {
        const NAME: &str = "ROUTING_SECRET_PREVIOUS";
        let previous = self.text(NAME)?;
        if self.text(ROUTING_SECRET).as_ref() == Some(&previous) {
            self.problem(NAME, "is ROUTING_SECRET itself: set it to the one before, or not at all");
        }
        Some(Secret::new(previous))
    }
}
