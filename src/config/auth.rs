//! The proof with which the router identifies itself to a target: GCP_AUTH and the variables beside it.

use std::{fs, sync::Arc};

use url::Url;

use super::{
    federation::{self, Federation},
    urls::has_user,
    vars::Vars,
};

/// The host of Google Cloud's metadata server.
pub const METADATA_HOST: &str = "metadata.google.internal";

/// Longest audience, in characters. Audiences are URLs or client ids.
const MAX_AUDIENCE_CHARS: usize = 1024;

/// An ID token that Google signs, in each request to a target
/// (<https://cloud.google.com/run/docs/authenticating/service-to-service>).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdToken {
    /// The receiver for which the token is valid.
    pub audience: String,
    pub issuer: Issuer,
}

/// The way to an ID token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Issuer {
    /// The metadata server at this host and port, for programs on Google Cloud.
    Metadata(String),
    /// Workload identity federation, for programs elsewhere.
    Federation(Arc<Federation>),
}

const AUTH: &str = "GCP_AUTH";
/// The setting that asks for an ID token.
const WITH_TOKEN: &str = "GCP_AUTH=id-token";

/// The variable with the text of the credentials, and the one with the name of their file.
const CREDENTIALS: &str = "GCP_CREDENTIALS";
const CREDENTIALS_FILE: &str = "GOOGLE_APPLICATION_CREDENTIALS";

impl Vars<'_> {
    /// Reads the ID token that requests to GCP_TARGET_URL carry.
    pub(super) fn gcp_id_token(&mut self, url: &Url) -> Option<IdToken> {
        const AUDIENCE: &str = "GCP_AUDIENCE";
        let auth = self.text(AUTH).map_or(Ok(false), |text| is_id_token(&text));
        let given = self.text(AUDIENCE);
        match auth {
            Ok(true) => {}
            Ok(false) => {
                for unused in [AUDIENCE, CREDENTIALS] {
                    if self.text(unused).is_some() {
                        self.warning(unused, no_effect(WITH_TOKEN));
                    }
                }
                return None;
            }
            Err(remedy) => {
                self.problem(AUTH, remedy);
                return None;
            }
        }
        if has_user(url) {
            self.problem("GCP_TARGET_URL", instead_of_user(WITH_TOKEN));
        }
        let read = given.as_deref().map(audience);
        if let Some(Err(remedy)) = read {
            self.problem(AUDIENCE, remedy);
        }
        let audience = given.unwrap_or_else(|| origin(url));
        Some(IdToken { audience, issuer: self.issuer()? })
    }

    /// Reads the way to ID tokens, which all targets share.
    pub(super) fn issuer(&mut self) -> Option<Issuer> {
        const HOST: &str = "GCE_METADATA_HOST";
        let read = match (self.text(CREDENTIALS), self.text(CREDENTIALS_FILE)) {
            (Some(_), Some(_)) => {
                let remedy = format!("is set beside {CREDENTIALS_FILE}: set only one of them");
                Err((CREDENTIALS, remedy))
            }
            (Some(text), None) => federation::read(&text).map_err(|remedy| (CREDENTIALS, remedy)),
            (None, Some(path)) => {
                let text = fs::read_to_string(&path);
                let text = text.map_err(|error| format!("{path} cannot be read: {error}"));
                let read = text.and_then(|text| {
                    federation::read(&text).map_err(|remedy| format!("{path} {remedy}"))
                });
                read.map_err(|remedy| (CREDENTIALS_FILE, remedy))
            }
            (None, None) => {
                let issuer = match self.text(HOST) {
                    // Lambda has no metadata server of Google Cloud.
                    None if self.in_lambda => Err((
                        CREDENTIALS,
                        "must be set for an ID token, to the JSON that `gcloud iam \
                         workload-identity-pools create-cred-config --aws` writes"
                            .into(),
                    )),
                    None => Ok(Issuer::Metadata(METADATA_HOST.into())),
                    Some(host) if is_host(&host) => Ok(Issuer::Metadata(host)),
                    Some(_) => Err((HOST, "must be a host and an optional port".into())),
                };
                return self.or_problem(issuer);
            }
        };
        self.or_problem(read.map(|federation| Issuer::Federation(Arc::new(federation))))
    }

    /// Returns the value, or reports its problem once, however many targets need the value.
    fn or_problem<T>(&mut self, read: Result<T, (&str, String)>) -> Option<T> {
        let (variable, remedy) = match read {
            Ok(value) => return Some(value),
            Err(problem) => problem,
        };
        let is_it = |error: &super::ConfigError| error.variable == variable;
        if !self.errors.iter().any(|error| is_it(error) && error.remedy == remedy) {
            self.problem(variable, remedy);
        }
        None
    }
}

/// Reads whether requests carry an ID token.
pub(super) fn is_id_token(text: &str) -> Result<bool, &'static str> {
    match text {
        "none" => Ok(false),
        "id-token" => Ok(true),
        _ => Err("must be none or id-token"),
    }
}

/// Reads the audience of an ID token.
pub(super) fn audience(text: &str) -> Result<String, &'static str> {
    let is_sound =
        text.len() <= MAX_AUDIENCE_CHARS && text.bytes().all(|byte| byte.is_ascii_graphic());
    is_sound
        .then(|| text.to_owned())
        .ok_or("must be the service's URL or another of its audiences, in ASCII and without spaces")
}

/// Returns the audience of a Cloud Run service that is called by its own URL.
pub(super) fn origin(url: &Url) -> String {
    url.origin().ascii_serialization()
}

/// Returns the warning about a setting of a token that is not sent.
pub(super) fn no_effect(setting: &str) -> String {
    format!("has no effect without {setting}")
}

/// Returns the remedy for a URL with a user or a password, whose place the token takes.
pub(super) fn instead_of_user(setting: &str) -> String {
    format!(
        "contains a user or a password, and {setting} sends an ID token in their place: remove \
         the user and the password, or that setting"
    )
}

/// Returns whether a text is a host with an optional port, and nothing else.
fn is_host(text: &str) -> bool {
    let url = Url::parse(&format!("http://{text}/")).ok();
    url.is_some_and(|url| {
        !has_user(&url) && url.path() == "/" && url.query().is_none() && url.fragment().is_none()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        config::{Config, ConfigError},
        testing::lookup,
    };

    const URL: &str = "https://x-1.a.run.app/ingest?team=2";

    fn read(vars: &[(&str, &str)]) -> (Option<IdToken>, Vec<ConfigError>, Vec<String>) {
        let target = [("ROUTE_THRESHOLD", "256"), ("GCP_TARGET_URL", URL)];
        let (config, problems) = Config::read(lookup(&[&target[..], vars].concat()));
        let doubts = config.doubts.iter().map(|doubt| doubt.subject.clone()).collect();
        (
            config
                .targets
                .get(crate::route::Route::GCP)
                .and_then(|gcp| gcp.http()?.id_token.clone()),
            problems,
            doubts,
        )
    }

    fn metadata(audience: &str, host: &str) -> Option<IdToken> {
        Some(IdToken { audience: audience.into(), issuer: Issuer::Metadata(host.into()) })
    }

    #[test]
    fn the_audience_is_the_origin_and_the_issuer_the_metadata_server_by_default() {
        let auth = ("GCP_AUTH", "id-token");
        let origin = "https://x-1.a.run.app";
        for (vars, expected) in [
            (vec![], None),
            (vec![("GCP_AUTH", "none")], None),
            (vec![auth], metadata(origin, METADATA_HOST)),
            (vec![auth, ("GCE_METADATA_HOST", "[::1]:80")], metadata(origin, "[::1]:80")),
            (vec![auth, ("GCP_AUDIENCE", "client.1")], metadata("client.1", METADATA_HOST)),
            (
                vec![auth, ("GCP_TARGET_URL", "http://127.0.0.1:9/x")],
                metadata("http://127.0.0.1:9", METADATA_HOST),
            ),
        ] {
            assert_eq!(read(&vars), (expected, vec![], vec![]), "{vars:?}");
        }
    }

    #[test]
    fn a_problem_names_its_variable() {
        let auth = ("GCP_AUTH", "id-token");
        for (vars, variable, remedy) in [
            (vec![("GCP_AUTH", "ID-TOKEN")], "GCP_AUTH", "must be none or id-token"),
            (vec![auth, ("GCP_AUDIENCE", "a b")], "GCP_AUDIENCE", "without spaces"),
            (vec![auth, ("GCE_METADATA_HOST", "http://x")], "GCE_METADATA_HOST", "must be a host"),
            (vec![auth, ("GCE_METADATA_HOST", "x/y")], "GCE_METADATA_HOST", "must be a host"),
            (
                vec![auth, ("GCP_TARGET_URL", "https://u:p@x.dev/")],
                "GCP_TARGET_URL",
                "remove the user and the password, or that setting",
            ),
            (
                vec![auth, ("GCP_CREDENTIALS", "{}"), ("GOOGLE_APPLICATION_CREDENTIALS", "x")],
                "GCP_CREDENTIALS",
                "is set beside GOOGLE_APPLICATION_CREDENTIALS",
            ),
            (
                vec![auth, ("GOOGLE_APPLICATION_CREDENTIALS", "/nowhere/x.json")],
                "GOOGLE_APPLICATION_CREDENTIALS",
                "/nowhere/x.json cannot be read",
            ),
            (vec![auth, ("GCP_CREDENTIALS", "{}")], "GCP_CREDENTIALS", "has no `type`"),
        ] {
            let (_, problems, _) = read(&vars);
            assert_eq!(problems.len(), 1, "{vars:?}: {problems:?}");
            assert_eq!(problems[0].variable, variable, "{vars:?}");
            assert!(problems[0].remedy.contains(remedy), "{vars:?}: {problems:?}");
        }
        let (_, problems, _) = read(&[auth, ("AWS_LAMBDA_RUNTIME_API", "127.0.0.1:9001")]);
        let is_it = |problem: &ConfigError| problem.variable == "GCP_CREDENTIALS";
        assert!(problems.iter().any(is_it), "{problems:?}");
    }

    #[test]
    fn a_setting_of_a_token_that_is_not_sent_is_in_doubt() {
        for (name, value) in [("GCP_AUDIENCE", "https://x.dev"), ("GCP_CREDENTIALS", "{}")] {
            let found = read(&[(name, value)]);
            assert_eq!(found, (None, vec![], vec![name.to_owned()]));
        }
    }
}
