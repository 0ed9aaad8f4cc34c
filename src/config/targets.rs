//! The targets that events are delivered to.

use std::path::PathBuf;

use url::{Host, Url};

use super::vars::Vars;

/// The targets that events are delivered to. A target may be absent if no event can be routed to
/// it.
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
    /// A name, a partial ARN or an ARN.
    pub function: String,
    pub role_arn: Option<String>,
    pub invocation: Invocation,
    pub payload: Payload,
}

impl AwsTarget {
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
    /// The exact bytes that came in. The rest is in the client context.
    Body,
    /// The event of a Function URL.
    Request,
}

impl Vars<'_> {
    pub(super) fn targets(&mut self, threshold: u16) -> Targets {
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
                "must be request with AWS_TARGET_INVOCATION=Event: Lambda drops the client context \
                 of a queued event, and key, vendor and attempt with it",
            );
        }
        let role_arn = self.text("AWS_TARGET_ROLE_ARN");
        if role_arn.as_ref().is_some_and(|arn| !arn.starts_with("arn:")) {
            self.problem("AWS_TARGET_ROLE_ARN", "must be an ARN: arn:aws:iam::ACCOUNT:role/NAME");
        }
        let function = self.text("AWS_TARGET_FUNCTION")?;
        if role_arn.is_none() && self.is_this_function(&function) {
            self.problem(
                "AWS_TARGET_FUNCTION",
                "is this function (AWS_LAMBDA_FUNCTION_NAME), which would call itself endlessly: \
                 name the processor",
            );
        }
        Some(AwsTarget { function, role_arn, invocation, payload })
    }

    /// Returns whether a name, `NAME:QUALIFIER`, partial ARN or ARN means this function itself.
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

fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}
