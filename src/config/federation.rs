//! Workload identity federation: the file of the type `external_account` that
//! `gcloud iam workload-identity-pools create-cred-config` writes (<https://google.aip.dev/auth/4117>).

use std::path::PathBuf;

use serde::Deserialize;
use url::Url;

use super::urls::is_loopback;

/// The types of subject tokens (<https://cloud.google.com/iam/docs/reference/sts/rest/v1/TopLevel/token>).
const AWS_REQUEST: &str = "urn:ietf:params:aws:token-type:aws4_request";
const JWT: &str = "urn:ietf:params:oauth:token-type:jwt";
const FILE_TYPES: [&str; 3] =
    [JWT, "urn:ietf:params:oauth:token-type:id_token", "urn:ietf:params:oauth:token-type:saml2"];

/// The ends of the addresses at which IAM Credentials issues access tokens and ID tokens.
const ACCESS_TOKEN: &str = ":generateAccessToken";
const ID_TOKEN: &str = ":generateIdToken";

/// The way from an identity outside Google Cloud to the ID token of a service account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Federation {
    /// The provider of the workload identity pool: `//iam.googleapis.com/projects/...`.
    pub provider: String,
    pub subject: Subject,
    /// The address at which Google's STS exchanges the subject token for an access token.
    pub token_url: Url,
    /// The address at which IAM Credentials issues an ID token of the service account.
    pub id_token_url: Url,
}

/// The identity outside Google Cloud.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Subject {
    /// A request for GetCallerIdentity that the router signs. Google sends it to AWS, and so learns
    /// who signed it. The address may contain `{region}`.
    AwsRequest { url: String },
    /// A token of AWS's outbound identity federation (GetWebIdentityToken).
    AwsToken,
    /// A token in a file that another program keeps up to date, as Kubernetes does.
    File {
        path: PathBuf,
        /// The member of the JSON object in the file. Without it, the file is the token.
        field: Option<String>,
        token_type: String,
    },
}

impl Subject {
    /// Returns the type of the subject token, as Google's STS calls it.
    pub fn token_type(&self) -> &str {
        match self {
            Self::AwsRequest { .. } => AWS_REQUEST,
            Self::AwsToken => JWT,
            Self::File { token_type, .. } => token_type,
        }
    }
}

#[derive(Deserialize)]
struct File {
    r#type: Option<String>,
    audience: Option<String>,
    subject_token_type: Option<String>,
    token_url: Option<String>,
    service_account_impersonation_url: Option<String>,
    credential_source: Option<CredentialSource>,
}

/// The place of the subject token. Each kind of source has members of its own.
#[derive(Deserialize)]
struct CredentialSource {
    environment_id: Option<String>,
    regional_cred_verification_url: Option<String>,
    file: Option<PathBuf>,
    format: Option<Format>,
}

#[derive(Deserialize)]
struct Format {
    r#type: Option<String>,
    subject_token_field_name: Option<String>,
}

/// Reads the text of the file.
///
/// # Errors
/// Fails with the remedy, which does not quote the text.
pub(super) fn read(text: &str) -> Result<Federation, String> {
    // The text of this error may quote a value.
    let file: File = serde_json::from_str(text).map_err(|error| {
        let (line, column) = (error.line(), error.column());
        format!(
            "must be the JSON that `gcloud iam workload-identity-pools create-cred-config` writes: \
             see line {line}, column {column}"
        )
    })?;
    match file.r#type.as_deref() {
        Some("external_account") => {}
        Some("service_account") => {
            return Err("is the key of a service account, a password that does not expire: use \
                        workload identity federation instead"
                .into());
        }
        Some(_) => {
            return Err("has another `type` than external_account, the only one that the router \
                        gets ID tokens with"
                .into());
        }
        None => return Err("has no `type`: it must be external_account".into()),
    }
    let given = |field: &Option<String>, name: &str| {
        let text = field.clone().filter(|text| !text.is_empty());
        text.ok_or_else(|| format!("has no `{name}`: create it again with gcloud"))
    };
    let impersonation = file.service_account_impersonation_url.as_deref().ok_or(
        "names no service account, and only a service account has ID tokens: create it again with \
         --service-account=EMAIL",
    )?;
    let account = impersonation.strip_suffix(ACCESS_TOKEN).ok_or_else(|| {
        format!("has a `service_account_impersonation_url` that does not end in {ACCESS_TOKEN}")
    })?;
    let token_type = given(&file.subject_token_type, "subject_token_type")?;
    let source = file.credential_source.ok_or("has no `credential_source`")?;
    Ok(Federation {
        provider: given(&file.audience, "audience")?,
        subject: subject(source, token_type)?,
        token_url: address(&given(&file.token_url, "token_url")?, "token_url")?,
        id_token_url: address(
            &format!("{account}{ID_TOKEN}"),
            "service_account_impersonation_url",
        )?,
    })
}

fn subject(source: CredentialSource, token_type: String) -> Result<Subject, String> {
    match source {
        CredentialSource { environment_id: Some(environment), .. } if environment != "aws1" => {
            Err("has an `environment_id` other than aws1, the only version known".into())
        }
        CredentialSource { environment_id: Some(_), regional_cred_verification_url, .. } => {
            match token_type.as_str() {
                AWS_REQUEST => {
                    let url = regional_cred_verification_url
                        .ok_or("has no `regional_cred_verification_url`")?;
                    // The request goes to Google, which sends it to this address.
                    address(&url.replace("{region}", "region"), "regional_cred_verification_url")?;
                    Ok(Subject::AwsRequest { url })
                }
                JWT => Ok(Subject::AwsToken),
                _ => Err(format!(
                    "has another `subject_token_type` than {AWS_REQUEST} or, with AWS's outbound \
                     identity federation, {JWT}"
                )),
            }
        }
        CredentialSource { file: Some(path), format, .. } => {
            if !FILE_TYPES.contains(&token_type.as_str()) {
                let known = FILE_TYPES.join(", ");
                return Err(format!("has another `subject_token_type` than {known}"));
            }
            let field = match format {
                Some(Format { r#type: Some(kind), subject_token_field_name }) if kind == "json" => {
                    Some(subject_token_field_name.ok_or("has no `subject_token_field_name`")?)
                }
                Some(Format { r#type: Some(kind), .. }) if kind != "text" => {
                    return Err("has another `format` than text or json".into());
                }
                _ => None,
            };
            Ok(Subject::File { path, field, token_type })
        }
        // A program (`executable`), an address (`url`) or a client certificate.
        _ => Err("has a `credential_source` that the router does not use: it takes the identity \
                  from AWS (create it again with --aws) or from a file, and runs no `executable` \
                  and asks no `url` for it"
            .into()),
    }
}

/// Parses an address. It must be https, or http on loopback: requests to it carry tokens, which
/// nobody on the way may read or change.
fn address(text: &str, name: &str) -> Result<Url, String> {
    let url = Url::parse(text)
        .ok()
        .filter(|url| url.scheme() == "https" || (url.scheme() == "http" && is_loopback(url)));
    url.ok_or_else(|| format!("has a `{name}` that is no https:// URL"))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const PROVIDER: &str =
        "//iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/p/providers/aws";
    const ACCOUNT: &str = "https://iamcredentials.googleapis.com/v1/projects/-/serviceAccounts/\
                           router@p.iam.gserviceaccount.com";
    const CALLER: &str =
        "https://sts.{region}.amazonaws.com?Action=GetCallerIdentity&Version=2011-06-15";

    /// The file that gcloud writes with `--aws`.
    fn of_aws() -> Value {
        json!({
            "universe_domain": "googleapis.com",
            "type": "external_account",
            "audience": PROVIDER,
            "subject_token_type": AWS_REQUEST,
            "token_url": "https://sts.googleapis.com/v1/token",
            "credential_source": {
                "environment_id": "aws1",
                "region_url": "http://169.254.169.254/latest/meta-data/placement/availability-zone",
                "url": "http://169.254.169.254/latest/meta-data/iam/security-credentials",
                "regional_cred_verification_url": CALLER,
            },
            "service_account_impersonation_url": format!("{ACCOUNT}:generateAccessToken"),
        })
    }

    /// Reads the file with another value at a pointer's place, or without it.
    fn with(pointer: &str, value: Option<Value>) -> Result<Federation, String> {
        let mut file = of_aws();
        let (parent, name) = pointer.rsplit_once('/').unwrap();
        let parent = file.pointer_mut(parent).unwrap().as_object_mut().unwrap();
        match value {
            Some(value) => parent.insert(name.to_owned(), value),
            None => parent.remove(name),
        };
        read(&file.to_string())
    }

    #[test]
    fn the_file_that_gcloud_writes_is_read() {
        let read = read(&of_aws().to_string()).unwrap();
        assert_eq!(read.provider, PROVIDER);
        assert_eq!(read.subject, Subject::AwsRequest { url: CALLER.into() });
        assert_eq!(read.subject.token_type(), AWS_REQUEST);
        assert_eq!(read.token_url.as_str(), "https://sts.googleapis.com/v1/token");
        assert_eq!(read.id_token_url.as_str(), format!("{ACCOUNT}:generateIdToken"));
    }

    #[test]
    fn the_type_of_the_subject_token_chooses_aws_s_outbound_identity_federation() {
        let read = with("/subject_token_type", Some(JWT.into())).unwrap();
        assert_eq!((read.subject.token_type(), &read.subject), (JWT, &Subject::AwsToken));
    }

    #[test]
    fn a_file_holds_a_token_or_json_with_a_token() {
        let mut file = of_aws();
        file["subject_token_type"] = JWT.into();
        for (source, field) in [
            (json!({ "file": "/run/token" }), None),
            (json!({ "file": "/run/token", "format": { "type": "text" } }), None),
            (
                json!({ "file": "/run/token",
                        "format": { "type": "json", "subject_token_field_name": "t" } }),
                Some("t".to_owned()),
            ),
        ] {
            file["credential_source"] = source;
            let read = read(&file.to_string()).unwrap();
            let path = "/run/token".into();
            assert_eq!(read.subject, Subject::File { path, field, token_type: JWT.into() });
        }
        for (source, remedy) in [
            (json!({ "file": "x", "format": { "type": "xml" } }), "text or json"),
            (json!({ "file": "x", "format": { "type": "json" } }), "subject_token_field_name"),
        ] {
            file["credential_source"] = source;
            assert!(read(&file.to_string()).unwrap_err().contains(remedy));
        }
    }

    #[test]
    fn what_cannot_give_an_id_token_is_refused_with_the_remedy() {
        let text = |text: &str| Some(Value::from(text));
        let executable = json!({ "executable": { "command": "/bin/plainly" } });
        let url = json!({ "url": "http://169.254.169.254/plainly" });
        for (pointer, value, remedy) in [
            ("/type", text("service_account"), "a password that does not expire"),
            ("/type", text("authorized_user"), "another `type`"),
            ("/type", None, "no `type`"),
            ("/audience", None, "no `audience`"),
            ("/audience", text(""), "no `audience`"),
            ("/subject_token_type", None, "no `subject_token_type`"),
            ("/subject_token_type", text("plainly"), "another `subject_token_type`"),
            ("/token_url", None, "no `token_url`"),
            ("/token_url", text("http://sts.googleapis.com/v1/token"), "no https:// URL"),
            ("/service_account_impersonation_url", None, "--service-account=EMAIL"),
            ("/service_account_impersonation_url", text(ACCOUNT), "does not end in"),
            ("/service_account_impersonation_url", text("ftp:x:generateAccessToken"), "https://"),
            ("/credential_source", None, "no `credential_source`"),
            ("/credential_source", Some(executable), "runs no `executable`"),
            ("/credential_source", Some(url), "asks no `url`"),
            ("/credential_source/environment_id", text("aws2"), "other than aws1"),
            ("/credential_source/regional_cred_verification_url", None, "has no `regional"),
            ("/credential_source/regional_cred_verification_url", text("x"), "no https:// URL"),
            ("/audience", Some(json!({ "plainly": 1 })), "see line 1, column"),
        ] {
            let problem = with(pointer, value).unwrap_err();
            assert!(problem.contains(remedy), "{pointer}: {problem}");
            assert!(!problem.contains("plainly"), "{problem}");
        }
        assert!(read("plainly").unwrap_err().contains("see line 1, column 1"));
    }
}
