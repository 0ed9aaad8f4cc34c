//! The vendors' own libraries: the router accepts what they sign, and they accept what the router's
//! `event` signs. Neither accepts a changed delivery.

mod forwarded;

use std::{
    collections::{BTreeSet, HashMap},
    io::{BufRead as _, BufReader, Write as _},
    path::Path,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use http::{HeaderName, HeaderValue, Method, header::AUTHORIZATION};
use rcgen::PublicKeyData as _;
use ring::signature::KeyPair as _;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::Value;
use webhook_router::{cmd::fronts, delivery::Delivery, source::secrets_variable};

use crate::{
    cli::router,
    event_command::{body_of, printed},
    signed_deliveries::{ED25519, PUBLIC_URL},
    support::{Serve, Sink, venv},
    vendors::vector,
};

/// Vendors with a body in events/vendors/ and a library, and what they sign with.
const SAMPLED: [(&str, &str); 12] = [
    ("stripe", "whsec_plainly_stripe"),
    ("standard-webhooks", "whsec_dGVzdC1vbmx5LXZlbmRvci1rZXktMDE="),
    ("github", "plainly-github"),
    ("adyen", "44782def547aaa06c910c43932b1eb0c71fc68d9d0c057550c48ec2acf6ba056"),
    ("twilio", "plainly-twilio"),
    ("paddle", "pdl_plainly"),
    ("shopify", "plainly-shopify"),
    ("slack", "plainly-slack"),
    ("square", "plainly-square"),
    ("razorpay", "plainly-razorpay"),
    ("gocardless", "plainly-gocardless"),
    ("braintree", "public:plainly-private"),
];

/// Test vectors of vendors with a library.
const CONSTRUCTED: [&str; 26] = [
    "box",
    "brex",
    "chargebee",
    "clerk",
    "discord",
    "elevenlabs",
    "gitlab/signed",
    "hubspot",
    "linear",
    "lithic",
    "meta",
    "modern-treasury",
    "mux",
    "openai",
    "orb",
    "polar",
    "pusher",
    "replicate",
    "resend",
    "retell",
    "sanity",
    "sendgrid",
    "telnyx",
    "webflow",
    "workos",
    "zoom",
];

/// Vectors of vendors that alone can sign. Their library only verifies.
const SIGNED: [&str; 2] = ["aws-sns/1", "aws-sns/2"];

/// A member of every JSON body. Its text is written in several ways in other encodings.
const NOTE: &str = "Grüße <&> 😀";
const ESCAPED_NOTE: &str = r"Gr\u00fc\u00dfe <&> \ud83d\ude00";

/// A delivery for the libraries. Without headers, they sign it. With headers, they verify it.
#[derive(Clone, Serialize)]
struct Request {
    vendor: &'static str,
    secret: String,
    url: String,
    body: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    headers: Option<HashMap<String, String>>,
    /// The certificate of Amazon SNS.
    #[serde(skip_serializing_if = "Option::is_none")]
    certificate: Option<String>,
    /// The delivery of a vendor that alone can sign.
    #[serde(skip)]
    signed: Option<Delivery>,
    /// The arguments with which `event` gets the private key, if the secret is a public key.
    #[serde(skip)]
    key: Vec<String>,
}

/// A delivery that a library has signed.
#[derive(Deserialize)]
struct Signed {
    library: String,
    headers: HashMap<String, String>,
    query: Option<String>,
    /// `None` if the body is the request's.
    body: Option<String>,
}

#[derive(Deserialize)]
struct Verdict {
    library: String,
    verdict: String,
}

impl Request {
    fn new(vendor: &'static str, secret: &str, body: &str) -> Self {
        let url = format!("{PUBLIC_URL}/webhook/{vendor}");
        let (secret, body) = (secret.into(), noted(body));
        let (headers, certificate, signed) = (None, None, None);
        Self { vendor, secret, url, body, headers, certificate, signed, key: Vec::new() }
    }

    fn signed(id: &'static str) -> Self {
        let vector = vector(id);
        let signed = vector.delivery(&vector.first);
        let body = String::from_utf8(signed.body.to_vec()).unwrap();
        let certificate = vector.fetched.as_ref().unwrap()["genuine"].clone();
        Self {
            certificate: Some(certificate),
            signed: Some(signed),
            ..Self::new(vendor_of(id), &vector.secret, &body)
        }
    }

    fn constructed(id: &'static str, folder: &Path) -> Self {
        let (vendor, vector) = (vendor_of(id), vector(id));
        let body = String::from_utf8(vector.delivery(&vector.first).body.to_vec()).unwrap();
        let mut request = Self::new(vendor, &vector.secret, &body);
        let whsk = || vec!["--secret".into(), format!("whsk_{}", BASE64_STANDARD.encode([7; 32]))];
        match vendor {
            // Meta escapes everything outside ASCII before it signs.
            "meta" => request.body = request.body.replace(NOTE, ESCAPED_NOTE),
            "discord" => {
                request.secret = hex::encode(ED25519.public_key().as_ref());
                request.key = whsk();
            }
            "telnyx" => {
                request.secret = BASE64_STANDARD.encode(ED25519.public_key().as_ref());
                request.key = whsk();
            }
            "sendgrid" => {
                let pair = rcgen::KeyPair::generate().unwrap();
                let file = folder.join("key.pem");
                std::fs::write(&file, pair.serialize_pem()).unwrap();
                request.secret = BASE64_STANDARD.encode(pair.subject_public_key_info());
                request.key = vec!["--key".into(), file.to_str().unwrap().into()];
            }
            _ => {}
        }
        request
    }

    /// Returns the requests of every vendor with a library. Private keys are written to the folder.
    fn all(folder: &Path) -> Vec<Self> {
        let sampled = SAMPLED.map(|(vendor, secret)| {
            Self::new(vendor, secret, &std::fs::read_to_string(body_of(vendor)).unwrap())
        });
        let constructed = CONSTRUCTED.map(|vendor| Self::constructed(vendor, folder));
        let signed = SIGNED.map(Self::signed);
        let mut all: Vec<_> = sampled.into_iter().chain(constructed).chain(signed).collect();
        // The same vendors sign other content in another way.
        for (vendor, body) in [
            ("twilio", r#"{"MessageSid":"SM1","MessageStatus":"delivered"}"#),
            ("adyen", r#"{"type":"balancePlatform.transfer.created","eventId":"1","data":{}}"#),
        ] {
            let first = all.iter().find(|request| request.vendor == vendor).unwrap();
            all.push(Self::new(vendor, &first.secret.clone(), body));
        }
        all
    }

    /// Signs with `event`, or returns the delivery of a vendor that alone can sign.
    fn by_event(&self, folder: &Path) -> Delivery {
        if let Some(signed) = &self.signed {
            return signed.clone();
        }
        let file = folder.join("body");
        std::fs::write(&file, &self.body).unwrap();
        let mut args = vec!["event", "--vendor", self.vendor, file.to_str().unwrap()];
        args.extend(self.key.iter().map(String::as_str));
        let variable = secrets_variable(self.vendor);
        let vars = [
            ("ROUTING_SECRET", "test-routing-secret"),
            ("PUBLIC_URL", PUBLIC_URL),
            (variable.as_str(), self.secret.as_str()),
        ];
        fronts::delivery(printed(&router(&args, &vars))).unwrap()
    }

    /// Returns the request that asks for a verdict on the delivery.
    fn about(&self, delivery: &Delivery) -> Self {
        let query = delivery.query.as_deref().filter(|query| !query.is_empty());
        let text = |value: &HeaderValue| value.to_str().unwrap().to_owned();
        let headers = delivery.headers.iter();
        Self {
            url: query.map_or(self.url.clone(), |query| format!("{}?{query}", self.url)),
            headers: Some(headers.map(|(name, value)| (name.to_string(), text(value))).collect()),
            body: String::from_utf8(delivery.body.to_vec()).unwrap(),
            ..self.clone()
        }
    }

    /// Returns the delivery that a library has signed.
    fn delivery(&self, signed: &Signed) -> Delivery {
        let headers = signed.headers.iter().map(|(name, value)| {
            (HeaderName::try_from(name).unwrap(), HeaderValue::try_from(value).unwrap())
        });
        Delivery {
            method: Method::POST,
            path: format!("/webhook/{}", self.vendor),
            query: signed.query.clone(),
            headers: headers.collect(),
            body: signed.body.as_ref().unwrap_or(&self.body).clone().into(),
        }
    }
}

/// Returns the vendor of a vector, which may have a name of its own.
fn vendor_of(id: &'static str) -> &'static str {
    id.split('/').next().unwrap_or(id)
}

/// Adds the note to a JSON body, which gets the form that every JSON library writes.
fn noted(body: &str) -> String {
    let Ok(mut document) = serde_json::from_str::<Value>(body) else { return body.trim().into() };
    let event = if document.is_array() { &mut document[0] } else { &mut document };
    event["note"] = NOTE.into();
    document.to_string()
}

/// Changes a part of a delivery that its signature covers.
fn changed(delivery: &Delivery) -> Delivery {
    let mut delivery = delivery.clone();
    if delivery.headers.contains_key(AUTHORIZATION) {
        let other = format!("Basic {}", BASE64_STANDARD.encode("router:another"));
        delivery.headers.insert(AUTHORIZATION, other.try_into().unwrap());
        return delivery;
    }
    let body = std::str::from_utf8(&delivery.body).unwrap();
    let other = [
        // Adyen signs some fields of an item.
        ("ExampleMerchant", "AnotherMerchant"),
        (NOTE, "Grüße <&> 😁"),
        (ESCAPED_NOTE, "Gr\\u00fc\\u00dfe <&> \\ud83d\\ude01"),
        ("a parcel is on its way", "a parcel is lost"),
        ("MessageStatus=delivered", "MessageStatus=undelivered"),
        ("bt_payload=P", "bt_payload=p"),
        ("bt_payload=C", "bt_payload=c"),
    ];
    let (from, to) = other.into_iter().find(|(from, _)| body.contains(from)).expect(body);
    delivery.body = body.replacen(from, to, 1).into();
    delivery
}

/// A running script of tests/libraries/.
struct Script {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    /// The vendors and names of its libraries.
    libraries: BTreeSet<(String, String)>,
}

impl Script {
    /// Starts the scripts, which have only the packages that `make test` installs, and waits until
    /// their libraries are loaded.
    fn start() -> [Self; 2] {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/libraries");
        let is_installed = folder.join("ready").exists();
        let missing = folder.display();
        assert!(is_installed, "{missing} is missing: run `make test`, which installs it");
        let mut node = Command::new("node");
        // A script from the command line takes its packages from the current folder.
        node.args(["--input-type=module", "--eval"]).current_dir(folder);
        node.arg(include_str!("../libraries/libraries.mjs"));
        let mut python = Command::new(venv("python"));
        python.args(["-c", include_str!("../libraries/libraries.py")]);
        [node, python].map(|mut command| {
            let pipes = command.stdin(Stdio::piped()).stdout(Stdio::piped());
            let mut child = pipes.spawn().unwrap();
            let (input, output) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
            let output = BufReader::new(output);
            let mut script = Self { child, input, output, libraries: BTreeSet::new() };
            script.libraries = script.line();
            script
        })
    }

    /// Returns the answers of the vendor's libraries.
    fn ask<T: DeserializeOwned>(&mut self, request: &Request) -> Vec<T> {
        writeln!(self.input, "{}", serde_json::to_string(request).unwrap()).unwrap();
        self.line()
    }

    fn line<T: DeserializeOwned>(&mut self) -> T {
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line:?}"))
    }
}

impl Drop for Script {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_router_accepts_what_the_libraries_sign() {
    let folder = tempfile::tempdir().unwrap();
    let requests = Request::all(folder.path());
    let secrets = requests.iter().map(|one| (secrets_variable(one.vendor), one.secret.clone()));
    let sink = Sink::start().await;
    let router = Serve::to(&sink).envs(secrets).env("PUBLIC_URL", PUBLIC_URL).start();
    let mut problems = Vec::new();
    for mut script in Script::start() {
        for request in &requests {
            for signed in script.ask::<Signed>(request) {
                let delivery = request.delivery(&signed);
                for (delivery, expected) in [(changed(&delivery), 401), (delivery, 200)] {
                    let got = router.deliver(&delivery).await;
                    if got.status != expected {
                        let (library, headers) = (&signed.library, &signed.headers);
                        problems.push(format!(
                            "{library}: {} {}: {headers:?}",
                            got.status,
                            got.text()
                        ));
                    }
                }
            }
        }
    }
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

#[test]
fn the_libraries_accept_what_the_router_signs() {
    let folder = tempfile::tempdir().unwrap();
    let requests = Request::all(folder.path());
    let mut problems = Vec::new();
    for mut script in Script::start() {
        let mut asked = BTreeSet::new();
        for request in &requests {
            // Some libraries accept a delivery for five seconds.
            let delivery = request.by_event(folder.path());
            for (delivery, expected) in [(changed(&delivery), "refused"), (delivery, "accepted")] {
                let about = request.about(&delivery);
                for Verdict { library, verdict } in script.ask(&about) {
                    if !verdict.starts_with(expected) {
                        problems.push(format!("{library}: {verdict}: {:?}", about.headers));
                    }
                    asked.insert((request.vendor.to_owned(), library));
                }
            }
        }
        assert_eq!(asked, script.libraries);
    }
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}
