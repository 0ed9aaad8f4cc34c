//! Every variable that the router reads, with its default and its check.
//!
//! Variables are read once, through a lookup function, and all problems are reported together.

mod auth;
mod client_certificate;
mod destinations;
mod federation;
mod forwarding;
mod inbox;
mod limits;
mod log;
mod mirror;
mod sources;
mod store;
mod targets;
mod urls;
mod variables;
mod vars;

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use chrono::TimeDelta;

pub use self::{
    auth::{IdToken, Issuer},
    destinations::{MAX_DESTINATIONS, shares},
    federation::{Federation, Subject},
    inbox::Inbox,
    limits::Limit,
    log::{LOG, log_filter},
    mirror::Mirroring,
    store::{RedisUrl, StoreConfig, StoreUrl},
    targets::{HttpTarget, Invocation, LambdaTarget, Payload, Place, Target, Targets},
    variables::{VARIABLES, Variable},
};
use self::{destinations::Table, sources::SourcesText, vars::Vars};
use crate::{
    delivery::Reply,
    finding::Finding,
    key::RoutingSecret,
    route::Shares,
    secret::Secret,
    signing::Signer,
    source::{Answer, Fetched, Source, Sources, envelope},
};

const ROUTING_SECRET: &str = "ROUTING_SECRET";
const THRESHOLD: &str = "ROUTE_THRESHOLD";
/// The routing secret of the examples. It is the default. Lambda refuses it, and so does `serve`
/// unless it listens on loopback.
pub const EXAMPLE_ROUTING_SECRET: &str = "dev-not-for-prod-change-me";
/// Smallest length of a routing secret, in bytes, where the example secret is refused.
const MIN_ROUTING_SECRET_BYTES: usize = 16;

/// Largest REDRIVE_LIMIT. Redrives are counted in the attempts that a record keeps.
pub const MAX_REDRIVE_LIMIT: u32 = 20;

/// Returns whether the router reads a variable of that name.
pub fn is_variable(name: &str) -> bool {
    // Variables of the vendors, and variables that a source's `secrets_from` names.
    let is_allowed = |byte: u8| matches!(byte, b'A'..=b'Z' | b'0'..=b'9' | b'_');
    // ROUTING_SECRETS is a typing error for ROUTING_SECRET, which would then stay unset.
    let is_slip = name == format!("{ROUTING_SECRET}S");
    let holds_secrets = || name.ends_with("_SECRETS") && name.bytes().all(is_allowed) && !is_slip;
    VARIABLES.iter().any(|variable| variable.name == name) || holds_secrets()
}

/// The checked settings.
#[derive(Debug, Clone)]
pub struct Config {
    pub intake: Intake,
    pub store: StoreConfig,
    pub targets: Targets,
    pub forward: Forward,
    /// Signs what is forwarded, if FORWARD_SECRETS is set.
    pub signer: Option<Signer>,
    pub inbox: Inbox,
    /// The mirrors, if some events are copied.
    pub mirroring: Option<Mirroring>,
    /// The shortest time for which a delivered event is remembered.
    pub dedup_ttl: Duration,
    pub duplicates: Duplicates,
    /// The number of redrives in a row with a final status, after which a dead
    /// letter is left to the operator.
    pub redrive_limit: u32,
    pub serving: Serving,
    /// The port on which `serve` listens.
    pub port: Option<u16>,
    pub metrics: MetricsListen,
    /// True if the Lambda runtime is an emulator, which may not know when an invocation must end.
    pub is_emulated: bool,
    /// Warnings about values that may not be intended.
    pub doubts: Vec<Finding>,
}

/// The settings that the plan of a delivery depends on.
#[derive(Debug, Clone)]
pub struct Intake {
    pub routing_secret: RoutingSecret,
    /// The previous routing secret, during a rotation. Keys under it are still looked up.
    pub previous_routing_secret: Option<RoutingSecret>,
    /// The destination of each route byte.
    pub shares: Shares,
    pub max_body_bytes: usize,
    pub unsigned: Unsigned,
    /// True if the key is derived from an envelope's `Idempotency-Key` instead of its content.
    pub trust_idempotency_header: bool,
    pub signature_tolerance: TimeDelta,
    /// The secrets of the envelope.
    pub envelope_secrets: Vec<Secret>,
    /// The time of the answer (at once, or after the delivery) for sources that do not choose one.
    pub answer: Answer,
    pub sources: Sources,
    /// The certificate that PayPal signs with, if it is configured instead of fetched.
    pub paypal_certificate: Option<Arc<Fetched>>,
}

/// The senders whose unsigned envelopes are accepted while ENVELOPE_SECRETS is not set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unsigned {
    Refused,
    /// Programs on this machine, the only senders for which `serve` on loopback is meant.
    FromThisMachine,
    /// Every sender: ALLOW_UNSIGNED=true.
    FromAnyone,
}

/// Limits on what `serve` holds at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Serving {
    pub max_connections: usize,
    /// Most bytes of bodies and replies, over all connections.
    pub max_buffered_bytes: usize,
}

/// The address on which `serve` shows its metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MetricsListen {
    Off,
    /// The default address, unless it is in use.
    Default,
    At(SocketAddr),
}

impl MetricsListen {
    pub const DEFAULT: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9464);
}

/// Controls how duplicates are answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Duplicates {
    /// True if duplicates get the first reply.
    pub replay: bool,
    /// Largest reply that is kept, in bytes.
    pub reply_keep_bytes: usize,
}

impl Duplicates {
    /// Returns whether a reply is kept with its record. It is kept only if duplicates get it,
    /// because the bytes of a reply cost room in every store, and DynamoDB charges for them again
    /// with every duplicate.
    pub fn keeps(&self, reply: &Reply) -> bool {
        self.replay && reply.body.len() <= self.reply_keep_bytes
    }
}

/// Controls how often and how long forwarding is tried.
#[derive(Debug, Clone, Copy)]
pub struct Forward {
    /// Most attempts of a delivery.
    pub attempts: u32,
    /// Longest pause before the second attempt. It doubles for each further attempt.
    pub backoff: Duration,
    /// The time limit for one attempt.
    pub timeout: Duration,
    /// The time limit for all attempts of a delivery, outside Lambda.
    pub budget: Duration,
}

/// Every problem with the variables.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigErrors(pub Vec<ConfigError>);

/// A variable and the remedy for its problem. Values are not repeated, because they may be secret.
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
    /// Reads all variables. A variable with an empty value counts as not set, except ROUTING_SECRET
    /// and RETRY_SCHEDULE, which must not be empty.
    ///
    /// # Errors
    /// Fails with every problem, not only the first.
    pub fn from_vars(get: impl Fn(&str) -> Option<String>) -> Result<Self, ConfigErrors> {
        let (config, problems) = Self::read(get);
        if problems.is_empty() { Ok(config) } else { Err(ConfigErrors(problems)) }
    }

    /// Reads all variables, and returns every problem. A placeholder takes the place of a
    /// setting with a problem.
    pub fn read(get: impl Fn(&str) -> Option<String>) -> (Self, Vec<ConfigError>) {
        let mut vars = Vars::new(&get);
        let (intake, targets) = vars.intake();
        let has_table = targets.is_some();
        let targets = targets.unwrap_or_else(|| vars.targets(&intake.shares));
        vars.check_sources(&intake.sources, &targets, has_table);
        vars.check_answers(intake.answer, &intake.sources);
        let mut config = Self {
            mirroring: vars.mirroring(&targets),
            store: vars.store(),
            forward: vars.forward(&targets),
            targets,
            signer: vars.signer(),
            inbox: vars.inbox(),
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

    /// Returns the warnings that an operator gets at start. They follow from the variables alone.
    pub fn warnings(&self) -> Vec<Finding> {
        [self.doubts.clone(), self.intake.warnings()].concat()
    }
}

impl Intake {
    /// Returns the certificate that is configured for a source, so that none is fetched.
    pub fn certificate_of(&self, source: &Source) -> Option<&Fetched> {
        let is_paypal = source.vendor.name() == "paypal";
        self.paypal_certificate.as_deref().filter(|_| is_paypal)
    }

    /// Reads only the variables that a plan depends on.
    ///
    /// # Errors
    /// Fails with every problem, not only the first.
    pub fn from_vars(get: impl Fn(&str) -> Option<String>) -> Result<Self, ConfigErrors> {
        let mut vars = Vars::new(&get);
        let (intake, _) = vars.intake();
        vars.finish(intake)
    }

    /// Returns the warnings for an operator at start: which paths are not served and which variable
    /// changes that, which path accepts unsigned events, and whether the routing secret is the
    /// public example.
    pub fn warnings(&self) -> Vec<Finding> {
        let (path, variable) = (envelope::PATH, envelope::SECRETS);
        let unsigned = match self.unsigned {
            _ if !self.envelope_secrets.is_empty() => None,
            Unsigned::FromThisMachine => Some(format!(
                "POST {path} accepts unsigned envelopes from programs on this machine: set \
                 {variable} to require signatures"
            )),
            Unsigned::FromAnyone => Some(format!(
                "POST {path} accepts unsigned envelopes from anyone (ALLOW_UNSIGNED): set \
                 {variable} to require signatures"
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
            let text = "has its default value, which is public: set your own before production";
            Finding::warning(ROUTING_SECRET, text)
        });
        unsigned.into_iter().chain(idle).chain(example).collect()
    }

    /// Returns the problem of a routing secret that is not safe when other machines can send requests.
    pub fn own_secret_problem(&self) -> Option<ConfigError> {
        let remedy = routing_secret_problem(self.routing_secret.expose())?;
        Some(ConfigError { variable: ROUTING_SECRET.into(), remedy })
    }
}

/// Returns the remedy for a routing secret that strangers could guess.
fn routing_secret_problem(secret: &str) -> Option<String> {
    if secret == EXAMPLE_ROUTING_SECRET {
        let remedy = "must be set to a secret of your own (`openssl rand -hex 32` makes one), not to \
                      the secret of the examples";
        return Some(remedy.into());
    }
    (secret.len() < MIN_ROUTING_SECRET_BYTES)
        .then(|| format!("must have at least {MIN_ROUTING_SECRET_BYTES} bytes"))
}

impl Vars<'_> {
    /// Reads the settings of a plan, and the targets if the configuration has a table of them.
    fn intake(&mut self) -> (Intake, Option<Targets>) {
        let sources = self.sources_text();
        let table = self.table(sources.as_ref());
        let (shares, targets) = match table {
            Some(Table { targets, shares }) => (shares, Some(targets)),
            None => (Shares::by_threshold(self.number(THRESHOLD, 0..=256) as u16), None),
        };
        let intake = Intake {
            routing_secret: self.routing_secret(),
            previous_routing_secret: self.previous_routing_secret(),
            shares,
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
            answer: self.answer(),
            sources: self.sources(sources),
            paypal_certificate: self.paypal_certificate(),
        };
        (intake, targets)
    }

    fn forward(&mut self, targets: &Targets) -> Forward {
        let (timeout, budget) =
            (self.millis("FORWARD_TIMEOUT_MS"), self.millis("FORWARD_BUDGET_MS"));
        // In Lambda, the invocation's remaining time is the budget.
        if timeout >= budget && !self.in_lambda {
            let limited = targets.iter().find(|target| !target.limit.is_none());
            // A single attempt that has the whole budget may be intended.
            let consequence = match limited {
                Some(limited) => Some(format!(
                    "no attempt waits for room at {}, which has limits: an event that finds no room is \
                     answered with 503 at once",
                    limited.name
                )),
                None if timeout > budget => {
                    Some("an attempt ends early and there is no time for a second one".to_owned())
                }
                None => None,
            };
            if let Some(consequence) = consequence {
                let is = if timeout > budget { "is more than" } else { "equals" };
                let (timeout, budget) = (timeout.as_millis(), budget.as_millis());
                let text = format!(
                    "{timeout} {is} FORWARD_BUDGET_MS ({budget}), so {consequence}: set \
                     FORWARD_TIMEOUT_MS below FORWARD_BUDGET_MS"
                );
                self.warning("FORWARD_TIMEOUT_MS", text);
            }
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
            // The default grows with the largest body.
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

    fn routing_secret(&mut self) -> RoutingSecret {
        if self.is_blank(ROUTING_SECRET) {
            let remedy = "is empty, so the secret of the examples would be used: set it to one of \
                          your own (`openssl rand -hex 32` makes one), or unset it to try the \
                          router on loopback";
            self.problem(ROUTING_SECRET, remedy);
            return RoutingSecret::new(EXAMPLE_ROUTING_SECRET);
        }
        let secret = self.text(ROUTING_SECRET).unwrap_or_else(|| EXAMPLE_ROUTING_SECRET.into());
        if self.in_lambda
            && let Some(remedy) = routing_secret_problem(&secret)
        {
            self.problem(ROUTING_SECRET, remedy);
        }
        RoutingSecret::new(secret)
    }

    fn previous_routing_secret(&mut self) -> Option<RoutingSecret> {
        const NAME: &str = "ROUTING_SECRET_PREVIOUS";
        let previous = self.text(NAME)?;
        if self.text(ROUTING_SECRET).as_ref() == Some(&previous) {
            self.problem(NAME, "equals ROUTING_SECRET: set it to the previous secret, or unset it");
        }
        Some(RoutingSecret::new(previous))
    }
}
