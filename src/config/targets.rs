//! The targets that events are delivered to.

use std::fmt;

use url::Url;

use super::{
    auth::IdToken,
    limits::Limit,
    urls::{has_user, http_url},
    vars::Vars,
};
use crate::{
    authorities::Authorities,
    client_certificate::ClientCertificate,
    route::{Route, Shares},
};

/// The variables of `gcp` and `aws`, the targets outside a table.
const GCP: &str = "GCP_TARGET_URL";
const AWS: &str = "AWS_TARGET_FUNCTION";

/// The remedy for a target that is the router itself.
pub(super) const THIS_FUNCTION: &str = "is this function (AWS_LAMBDA_FUNCTION_NAME), which would \
                                        call itself endlessly: name the processor";

/// The reason why a queued invocation needs the payload `request`.
pub(super) const QUEUED: &str = "Lambda drops the client context of a queued event, and key, vendor \
                                 and attempt with it";

/// Longest name or ARN of a function that the Lambda API takes, in characters
/// (<https://docs.aws.amazon.com/lambda/latest/api/API_Invoke.html>).
const MAX_FUNCTION_CHARS: usize = 170;

/// The configured destinations, in the order of the table.
#[derive(Debug, Clone, Default)]
pub struct Targets(Vec<Target>);

impl Targets {
    pub fn new(targets: Vec<Target>) -> Self {
        Self(targets)
    }

    pub fn get(&self, name: Route) -> Option<&Target> {
        self.0.iter().find(|target| target.name == name)
    }

    pub fn iter(&self) -> impl Iterator<Item = &Target> {
        self.0.iter()
    }

    /// Returns the names of the destinations.
    pub fn routes(&self) -> Vec<Route> {
        self.0.iter().map(|target| target.name).collect()
    }
}

/// A destination, and everything that is configured for it.
#[derive(Debug, Clone)]
pub struct Target {
    pub name: Route,
    /// The setting that an operator changes to correct the target.
    pub setting: String,
    pub place: Place,
    pub limit: Limit,
    /// Gets copies of the destination's events, in place of MIRROR_URL and MIRROR_FUNCTION.
    pub mirror: Option<HttpTarget>,
}

impl Target {
    /// Returns the URL and its settings, unless the destination is a Lambda.
    pub fn http(&self) -> Option<&HttpTarget> {
        match &self.place {
            Place::Http(http) => Some(http),
            Place::Lambda(_) => None,
        }
    }

    /// Returns the function and its settings, if the destination is a Lambda.
    pub fn lambda(&self) -> Option<&LambdaTarget> {
        match &self.place {
            Place::Lambda(lambda) => Some(lambda),
            Place::Http(_) => None,
        }
    }
}

/// The place that a destination's events are sent to.
#[derive(Debug, Clone)]
pub enum Place {
    /// A Cloud Run service, or another service that receives events as POST requests.
    Http(HttpTarget),
    Lambda(LambdaTarget),
}

#[derive(Clone)]
pub struct HttpTarget {
    pub url: Url,
    /// A private CA that is trusted in addition to the public CAs.
    pub ca: Option<Authorities>,
    pub client_certificate: Option<ClientCertificate>,
    /// The ID token that each request carries.
    pub id_token: Option<IdToken>,
}

/// Omits the URL's user, password and query, which may hold a token.
impl fmt::Debug for HttpTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let origin = self.url.origin().ascii_serialization();
        f.debug_struct("HttpTarget")
            .field("origin", &origin)
            .field("ca", &self.ca)
            .field("client_certificate", &self.client_certificate)
            .field("id_token", &self.id_token)
            .finish()
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LambdaTarget {
    /// A name, a partial ARN or an ARN.
    pub function: String,
    pub role_arn: Option<String>,
    pub invocation: Invocation,
    pub payload: Payload,
}

impl LambdaTarget {
    /// Returns the region in an ARN. A region answers only for its own functions.
    pub fn region(&self) -> Option<&str> {
        self.function.strip_prefix("arn:")?.split(':').nth(2)
    }
}

/// The invocation types of the Lambda API
/// (<https://docs.aws.amazon.com/lambda/latest/api/API_Invoke.html>).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Invocation {
    RequestResponse,
    Event,
}

/// The form of the function's payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Payload {
    /// The exact bytes that came in. Key, vendor, type and attempt are in the client context.
    Body,
    /// The event of a Function URL.
    Request,
}

impl Vars<'_> {
    /// Reads the targets of `gcp` and `aws`. A target may be absent if no byte belongs to it.
    pub(super) fn targets(&mut self, shares: &Shares) -> Targets {
        let gcp = self.gcp_target();
        let aws = self.aws_target();
        if gcp.is_none() && shares.count(Route::GCP) > 0 && self.text(GCP).is_none() {
            self.problem(
                GCP,
                "must be set to the Cloud Run service's URL (or ROUTE_THRESHOLD to 0)",
            );
        }
        if aws.is_none() && shares.count(Route::AWS) > 0 && self.text(AWS).is_none() {
            self.problem(
                AWS,
                "must be set to the processor Lambda's name or ARN (or ROUTE_THRESHOLD to 256)",
            );
        }
        let (of_gcp, of_aws) = (self.limit("GCP"), self.limit("AWS"));
        let gcp = gcp.map(|http| (Route::GCP, GCP, Place::Http(http), of_gcp));
        let aws = aws.map(|lambda| (Route::AWS, AWS, Place::Lambda(lambda), of_aws));
        let targets = gcp.into_iter().chain(aws);
        let targets = targets.map(|(name, setting, place, limit)| {
            let setting = setting.to_owned();
            Target { name, setting, place, limit, mirror: None }
        });
        Targets::new(targets.collect())
    }

    fn gcp_target(&mut self) -> Option<HttpTarget> {
        const NAME: &str = GCP;
        let ca = self.authorities("GCP_CA_FILE");
        let client_certificate = self.client_certificate();
        match http_url(&self.text(NAME)?) {
            Ok(url) => {
                self.warn_of_credentials(NAME, &url);
                let id_token = self.gcp_id_token(&url);
                Some(HttpTarget { url, ca, client_certificate, id_token })
            }
            Err(remedy) => {
                self.problem(NAME, remedy);
                None
            }
        }
    }

    /// Warns of a URL that holds a password.
    pub(super) fn warn_of_credentials(&mut self, setting: &str, url: &Url) {
        if has_user(url) {
            self.warning(
                setting,
                "contains a user or a password, which each delivery carries as basic \
                 authorization: keep the URL in the secret of SECRETS_ARN, or remove them",
            );
        }
    }

    fn aws_target(&mut self) -> Option<LambdaTarget> {
        let invocation = match self.choice(
            "AWS_TARGET_INVOCATION",
            "RequestResponse",
            &["RequestResponse", "Event"],
        ) {
            "Event" => Invocation::Event,
            _ => Invocation::RequestResponse,
        };
        let payload = match self.choice("AWS_TARGET_PAYLOAD", "body", &["body", "request"]) {
            "request" => Payload::Request,
            _ => Payload::Body,
        };
        if invocation == Invocation::Event && payload == Payload::Body {
            self.problem(
                "AWS_TARGET_PAYLOAD",
                format!("must be request with AWS_TARGET_INVOCATION=Event: {QUEUED}"),
            );
        }
        let role_arn = self.text("AWS_TARGET_ROLE_ARN");
        if let Some(Err(remedy)) = role_arn.as_deref().map(role) {
            self.problem("AWS_TARGET_ROLE_ARN", remedy);
        }
        let function = self.text(AWS)?;
        if let Err(remedy) = check_function(&function) {
            self.problem(AWS, remedy);
        }
        if role_arn.is_none() && self.is_this_function(&function) {
            self.problem(AWS, THIS_FUNCTION);
        }
        Some(LambdaTarget { function, role_arn, invocation, payload })
    }

    /// Returns whether a name, `NAME:QUALIFIER`, partial ARN or ARN means this function itself.
    pub(super) fn is_this_function(&self, target: &str) -> bool {
        let parts: Vec<_> = target.split(':').collect();
        let (name, region) = match *parts {
            ["arn", _, _, region, _, "function", name, ..] => (name, Some(region)),
            [_, "function", name, ..] => (name, None),
            [name, ..] => (name, None),
            [] => return false,
        };
        let is = |variable, part| self.text(variable).is_some_and(|value| value == part);
        is("AWS_LAMBDA_FUNCTION_NAME", name) && region.is_none_or(|region| is("AWS_REGION", region))
    }
}

/// Reads the ARN of a role.
pub(super) fn role(text: &str) -> Result<String, &'static str> {
    let is_arn = text.starts_with("arn:");
    is_arn.then(|| text.to_owned()).ok_or("must be an ARN: arn:aws:iam::ACCOUNT:role/NAME")
}

/// Reads the name or the ARN of a function.
pub(super) fn check_function(text: &str) -> Result<String, &'static str> {
    is_function(text).then(|| text.to_owned()).ok_or(
        "must be a function's name or ARN: NAME, NAME:ALIAS or \
         arn:aws:lambda:REGION:ACCOUNT:function:NAME",
    )
}

/// Returns whether a text is a function's name, `NAME:QUALIFIER`, partial ARN or ARN.
fn is_function(text: &str) -> bool {
    let is_word = |part: &str| {
        let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
        !part.is_empty() && part.bytes().all(is_allowed)
    };
    let is_account = |part: &str| part.len() == 12 && part.bytes().all(|b| b.is_ascii_digit());
    let parts: Vec<_> = text.split(':').collect();
    let named = match *parts {
        ["arn", partition, "lambda", region, account, "function", ref named @ ..]
            if partition.starts_with("aws") && is_word(region) && is_account(account) =>
        {
            named
        }
        [account, "function", ref named @ ..] if is_account(account) => named,
        ref named => named,
    };
    text.len() <= MAX_FUNCTION_CHARS
        && match *named {
            [name] => is_word(name),
            [name, qualifier] => is_word(name) && (qualifier == "$LATEST" || is_word(qualifier)),
            _ => false,
        }
}
