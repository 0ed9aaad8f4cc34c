//! The configuration of sources: every problem names source, line and field, and secrets are never
//! shown.

use webhook_router::config::{Config, Intake};

use crate::support::lookup;

const TARGETS: [(&str, &str); 2] = [
    ("GCP_TARGET_URL", "https://processor.example.com/events"),
    ("AWS_TARGET_FUNCTION", "processor"),
];

/// Returns the problems of variables that cannot be used.
fn problems(vars: &[(&str, &str)]) -> Vec<String> {
    let errors = Config::from_vars(lookup(&[&TARGETS, vars].concat())).unwrap_err();
    errors.0.iter().map(|error| format!("{}: {}", error.variable, error.remedy)).collect()
}

const STRIPE: &str = "[sources.eu]\nvendor = \"stripe\"\nsecrets = [\"plainly-hidden\"]\n";
const CUSTOM: &str = "[sources.acme]\nvendor = \"custom\"\nsecrets = [\"plainly-hidden\"]\n";

const ORIGIN: &str = "must be an origin with an optional prefix: https://hooks.example.com";

#[test]
fn twenty_broken_descriptions_get_the_error_that_helps() {
    let custom = |line: u32, rest: &str| format!("SOURCES: line {line}: [sources.acme] {rest}");
    let schemes = "hmac-body, hmac-timestamped, standard-webhooks, shared-secret, basic or ed25519";
    for (fields, expected) in [
        ("", custom(1, &format!("`scheme` is missing: it is {schemes}"))),
        ("scheme = \"hmac\"", custom(4, &format!("`scheme` must be {schemes}"))),
        ("scheme = 1", custom(4, "`scheme` must be a text in quotes")),
        (
            "scheme = \"hmac-body\"",
            custom(
                1,
                "`header` is missing: it is the header, or the JSON pointer, of the signature",
            ),
        ),
        (
            "scheme = \"hmac-body\"\nheader = \"X Sig\"",
            custom(5, "`header` must be a header, or a JSON pointer as in /data/id"),
        ),
        (
            "scheme = \"hmac-body\"\nheader = \"X-Sig\"\nalgorithm = \"md5\"",
            custom(6, "`algorithm` must be sha1, sha256, sha384 or sha512"),
        ),
        (
            "scheme = \"hmac-body\"\nheader = \"X-Sig\"\nencoding = \"HEX\"",
            custom(6, "`encoding` must be hex, base64 or base64url"),
        ),
        (
            "scheme = \"hmac-body\"\nheader = \"X-Sig\"\nsecret_encoding = \"hex\"",
            custom(3, "`secrets` each secret must be hex digits"),
        ),
        (
            "scheme = \"hmac-body\"\nheader = \"X-Sig\"\ntemplate = \"{timestamp}.{body}\"",
            custom(6, "`template` holds {timestamp}, but no field says where the time is"),
        ),
        (
            "scheme = \"hmac-body\"\nheader = \"X-Sig\"\ntemplate = \"{url}\"",
            custom(
                6,
                "`template` must contain {body} exactly once, or at least one value of the body \
                 such as {/id}: nothing else protects the body",
            ),
        ),
        (
            "scheme = \"hmac-body\"\nheader = \"X-Sig\"\ntemplate = \"{payload}{body}\"",
            custom(
                6,
                "`template` holds `{payload}`, which is not a placeholder: use {body}, \
                 {timestamp}, {url}, {method}, {header:NAME} or a JSON pointer such as {/data/id}",
            ),
        ),
        (
            "scheme = \"hmac-body\"\nheader = \"X-Sig\"\ntolerance = 60",
            custom(6, "`tolerance` has no meaning for scheme = \"hmac-body\""),
        ),
        (
            "scheme = \"hmac-timestamped\"\nheader = \"X-Sig\"\ntemplate = \"{timestamp}.{body}\"",
            custom(1, "`timestamp` is missing: it is a header or a JSON pointer"),
        ),
        (
            "scheme = \"hmac-timestamped\"\nheader = \"X-Sig\"\ntimestamp = \"X-Time\"",
            custom(
                1,
                "`template` is missing: it describes the signed bytes, as in \"{timestamp}.{body}\"",
            ),
        ),
        (
            "scheme = \"hmac-timestamped\"\nheader = \"X-Sig\"\ntimestamp = \"X-Time\"\n\
             template = \"{body}\"",
            custom(7, "`template` must hold {timestamp}, or anybody could change it"),
        ),
        (
            "scheme = \"hmac-timestamped\"\nheader = \"X-Sig\"\ntimestamp = \"X-Time\"\n\
             timestamp_prefix = \"t=\"\ntemplate = \"{timestamp}.{body}\"",
            custom(7, "`timestamp_prefix` must not be set together with `timestamp`"),
        ),
        (
            "scheme = \"hmac-timestamped\"\nheader = \"X-Sig\"\ntimestamp = \"X-Time\"\n\
             timestamp_unit = \"s\"\ntemplate = \"{timestamp}.{body}\"",
            custom(7, "`timestamp_unit` must be text, seconds or milliseconds"),
        ),
        (
            "scheme = \"hmac-timestamped\"\nheader = \"X-Sig\"\ntimestamp = \"X-Time\"\n\
             tolerance = 0\ntemplate = \"{timestamp}.{body}\"",
            custom(7, "`tolerance` must be a whole number from 1 to 86400"),
        ),
        (
            "scheme = \"shared-secret\"",
            custom(1, "`header` is missing: it names the header that holds the secret"),
        ),
        ("scheme = \"basic\"", custom(3, "`secrets` each secret must be `user:password`")),
        (
            "scheme = \"ed25519\"\nheader = \"X-Sig\"",
            custom(
                3,
                "`secrets` each secret must be the 32 bytes of an Ed25519 public key, in hex or \
                 base64",
            ),
        ),
        (
            "scheme = \"hmac-body\"\nheader = \"X-Sig\"\nid = \"/a~2\"",
            custom(6, "`id` must be a header, or a JSON pointer as in /data/id"),
        ),
        (
            "scheme = \"shared-secret\"\nheader = [\"X-A\", \"X-B\"]",
            custom(5, "`header` must be one text, not a list"),
        ),
        (
            "scheme = \"hmac-timestamped\"\nheader = \"X-Sig\"\ntimestamp = [\"X-A\", \"X-B\"]\n\
             template = \"{timestamp}.{body}\"",
            custom(6, "`timestamp` must be one text, not a list"),
        ),
        (
            "scheme = \"hmac-body\"\nheader = \"Idempotency-Key\"",
            custom(5, "`header` must not name `idempotency-key`, which the router sets itself"),
        ),
        (
            "scheme = \"hmac-body\"\nheader = \"X-Sig\"\n\
             template = \"{body}{header:X-Webhook-Vendor}\"",
            custom(6, "`template` must not name `x-webhook-vendor`, which the router sets itself"),
        ),
        (
            "scheme = \"hmac-body\"\nheader = \"X-Sig\"\neach = \"events\"",
            custom(6, "`each` must be a JSON pointer that begins with `/`, as in `/data/id`"),
        ),
        (
            "scheme = \"hmac-body\"\nheader = \"X-Sig\"\nhandshake = { echo = \"/x\" }",
            custom(
                6,
                "`handshake` must be { at = \"/type\", is = \"url_verification\", answer = \
                 \"/challenge\" }",
            ),
        ),
        (
            "scheme = \"hmac-body\"\nheader = \"X-Sig\"\ntyp = \"/type\"",
            custom(6, "`typ` is not a field of this kind of source"),
        ),
    ] {
        let text = format!("{CUSTOM}{fields}\n");
        assert_eq!(problems(&[("SOURCES", &text)]), [expected], "{text}");
    }
}

#[test]
fn a_time_that_ed25519_does_not_sign_is_an_error() {
    let key = "00".repeat(32);
    for (fields, expected) in [
        (
            "template = \"{body}\"\ntimestamp = \"X-Time\"",
            "line 6: [sources.acme] `template` must hold {timestamp}, or anybody could change it",
        ),
        (
            "template = \"{body}\"\ntimestamp_prefix = \"t=\"",
            "line 6: [sources.acme] `template` must hold {timestamp}, or anybody could change it",
        ),
        ("tolerance = 60", "line 6: [sources.acme] `tolerance` has no meaning without `timestamp`"),
        (
            "timestamp_unit = \"text\"",
            "line 6: [sources.acme] `timestamp_unit` has no meaning without `timestamp`",
        ),
    ] {
        let text = format!(
            "[sources.acme]\nvendor = \"custom\"\nsecrets = [\"{key}\"]\nscheme = \"ed25519\"\n\
             header = \"X-Sig\"\n{fields}\n"
        );
        assert_eq!(problems(&[("SOURCES", &text)]), [format!("SOURCES: {expected}")], "{text}");
    }
}

#[test]
fn broken_sources_get_the_error_that_helps() {
    let eu = |line: u32, rest: &str| format!("SOURCES: line {line}: [sources.eu] {rest}");
    for (text, expected) in [
        (format!("{STRIPE}key = \"event\""), eu(4, "`key` must be \"id\" or \"content\"")),
        (format!("{STRIPE}only = \"a\""), eu(4, "`only` must be a list of texts: [\"...\"]")),
        (format!("{STRIPE}except = []"), eu(4, "`except` must name event types")),
        (
            format!("{STRIPE}ignore = [\"pending_webhooks\"]"),
            eu(4, "`ignore` must be a JSON pointer that begins with `/`, as in `/data/id`"),
        ),
        (
            format!("{STRIPE}where = {{ livemode = true }}"),
            eu(4, "`where` must have JSON pointers as names, as in \"/livemode\" = true"),
        ),
        (
            format!("{STRIPE}where = {{ \"/a\" = [1] }}"),
            eu(4, "`where` must have texts, numbers, true or false as values"),
        ),
        (format!("{STRIPE}destination = \"eu\""), eu(4, "`destination` must be \"gcp\" or \"aws\", or be named in DESTINATIONS")),
        (format!("{STRIPE}threshold = 257"), eu(4, "`threshold` must be a whole number from 0 to 256")),
        (
            format!("{STRIPE}destination = \"aws\"\nthreshold = 1"),
            eu(5, "`threshold` must not be set together with `destination`"),
        ),
        (
            format!("{STRIPE}answer = \"later\""),
            eu(4, "`answer` must be \"delivered\" or \"accepted\""),
        ),
        (format!("{STRIPE}url = \"hooks\""), eu(4, &format!("`url` {ORIGIN}"))),
        (format!("{STRIPE}url = \"https://a.example?b\""), eu(4, &format!("`url` {ORIGIN}"))),
        (format!("{STRIPE}scheme = \"basic\""), eu(4, "`scheme` is not a field of this kind of source")),
        (
            format!("{STRIPE}secrets_from = \"EU_SECRETS\""),
            eu(4, "`secrets_from` must not be set together with `secrets`"),
        ),
        (
            "[sources.eu]\nvendor = \"stripe\"\nsecrets_from = \"EU_KEYS\"".into(),
            eu(3, "`secrets_from` must be a variable's name that ends in _SECRETS"),
        ),
        (
            "[sources.eu]\nvendor = \"strpe\"\nsecrets = [\"x\"]".into(),
            eu(2, "`vendor` `strpe` is not a built-in vendor; use \"custom\" for any other vendor"),
        ),
        (
            "\n\n[sources.eu]\nsecrets = [\"x\"]".into(),
            eu(3, "`vendor` is missing: it names a built-in vendor, or \"custom\""),
        ),
        (
            "[sources.eu]\nvendor = \"adyen\"\nsecrets = [\"plainly\"]".into(),
            eu(3, "`secrets` each secret must be the HMAC key's hex digits"),
        ),
        (
            "[sources.\"E U\"]\nvendor = \"stripe\"\nsecrets = [\"x\"]".into(),
            "SOURCES: line 1: [sources.E U] must have a name of 1 to 63 characters of a-z, 0-9 and \
             `-`"
                .into(),
        ),
        (
            "[sources.event-id]\nvendor = \"stripe\"\nsecrets = [\"x\"]".into(),
            "SOURCES: line 1: [sources.event-id] must have another name: the router uses this \
             one itself"
                .into(),
        ),
        (
            "[sources.github]\nvendor = \"custom\"\nscheme = \"basic\"\nsecrets = [\"a:b\"]".into(),
            "SOURCES: line 2: [sources.github] `vendor` must not be \"custom\" for a source with a \
             built-in vendor's name"
                .into(),
        ),
        ("[source.eu]".into(), "SOURCES: line 1: `source` is unknown: write [sources.NAME]".into()),
    ] {
        assert_eq!(problems(&[("SOURCES", &text)]), [expected], "{text}");
    }
    let broken = problems(&[("SOURCES", "[sources.eu]\nvendor = stripe\n")]);
    assert!(broken[0].starts_with("SOURCES: line 2: is not TOML: "), "{broken:?}");
}

#[test]
fn all_problems_of_sources_are_found_at_once_and_show_no_secret() {
    let text = format!("{STRIPE}key = 1\nonly = []\n\n{CUSTOM}scheme = \"basic\"\n[sources.x]\n");
    let found = problems(&[("SOURCES", &text), ("SLACK_SECRETS", ","), ("PUBLIC_URL", "ftp://x")]);
    assert_eq!(found.len(), 7, "{found:#?}");
    // A wrong vendor does not hide the other problems of its source.
    let text = "[sources.x]\nvendor = \"strpe\"\nkey = \"event\"\nurl = \"hooks\"\n";
    let fields = ["vendor", "secrets", "key", "url"].map(|field| format!("`{field}`"));
    let found = problems(&[("SOURCES", text)]);
    assert_eq!(found.len(), fields.len(), "{found:?}");
    assert!(found.iter().zip(fields).all(|(one, field)| one.contains(&field)), "{found:?}");
    // The file is named, and the line.
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "\n[sources.sq]\nvendor = \"square\"\nsecrets = [\"x\"]").unwrap();
    assert_eq!(
        problems(&[("SOURCES_FILE", file.path().to_str().unwrap())]),
        [
            "SOURCES_FILE: line 2: [sources.sq] `url` is missing, and PUBLIC_URL is not set: its vendor \
             signs the address that it calls"
        ]
    );
    assert!(found.iter().all(|one| !one.contains("plainly")), "{found:?}");
}

#[test]
fn sources_that_contradict_variables_are_errors() {
    let stripe = STRIPE.replace("sources.eu", "sources.stripe");
    assert_eq!(
        problems(&[("SOURCES", &stripe), ("STRIPE_SECRETS", "whsec_x")]),
        ["SOURCES: line 1: [sources.stripe] is also configured by STRIPE_SECRETS: rename the \
             source, or unset the variable"]
    );
    assert_eq!(
        problems(&[("SOURCES", STRIPE), ("EU_SECRETS", "whsec_x")]),
        ["SOURCES: line 3: [sources.eu] `secrets` must not be set together with EU_SECRETS"]
    );
    let other = "[sources.eu]\nvendor = \"stripe\"\nsecrets_from = \"OTHER_SECRETS\"";
    assert_eq!(
        problems(&[("SOURCES", other), ("EU_SECRETS", "whsec_x")]),
        ["SOURCES: line 3: [sources.eu] `secrets_from` must not be set together with EU_SECRETS"]
    );
    assert_eq!(
        problems(&[("SOURCES", STRIPE), ("SOURCES_FILE", "sources.toml")]),
        ["SOURCES_FILE: must not be set together with SOURCES"]
    );
    let missing = problems(&[("SOURCES_FILE", "/nowhere/sources.toml")]);
    assert!(missing[0].starts_with("SOURCES_FILE: cannot be read: "), "{missing:?}");
    let missing = problems(&[("PAYPAL_CERT_FILE", "/nowhere/paypal.pem")]);
    assert!(missing[0].starts_with("PAYPAL_CERT_FILE: cannot be read: "), "{missing:?}");
    assert_eq!(
        problems(&[("PAYPAL_CERT_FILE", "Cargo.toml")]),
        ["PAYPAL_CERT_FILE: must be a certificate with an RSA key, in PEM form"]
    );
    for address in [
        "hooks.example.com",
        "ftp://a.example",
        "https://a.example/?b",
        "https://a.example/#b",
        "https://user@a.example",
        "https://user:plainly@a.example",
    ] {
        let expected = format!("PUBLIC_URL: {ORIGIN}");
        assert_eq!(problems(&[("PUBLIC_URL", address)]), [expected], "{address}");
    }
}

#[test]
fn vendors_that_sign_their_address_need_to_know_it() {
    assert_eq!(
        problems(&[("SQUARE_SECRETS", "x")]),
        [
            "PUBLIC_URL: must be set for the source square, or `url` of [sources.square]: its vendor \
             signs the address that it calls"
        ]
    );
    let address = ("PUBLIC_URL", "https://hooks.example.com/in");
    let config = |vars: &[(&str, &str)]| Config::from_vars(lookup(&[&TARGETS, vars].concat()));
    assert!(config(&[("TWILIO_SECRETS", "x"), address]).is_ok());
    let text = "[sources.sq]\nvendor = \"square\"\nsecrets = [\"x\"]\nurl = \"https://a.example\"";
    assert!(config(&[("SOURCES", text)]).is_ok());
}

#[test]
fn targets_that_only_a_rule_leads_to_must_be_there() {
    let gcp = [TARGETS[0], ("ROUTE_THRESHOLD", "256")];
    let text = format!("{STRIPE}destination = \"aws\"");
    let errors = Config::from_vars(lookup(&[&gcp[..], &[("SOURCES", &text)]].concat()));
    let errors = errors.unwrap_err().0;
    assert_eq!(errors.len(), 1, "{errors:?}");
    assert_eq!(errors[0].variable, "SOURCES");
    assert_eq!(
        errors[0].remedy,
        "line 4: [sources.eu] `destination` sends events to aws: set AWS_TARGET_FUNCTION"
    );
}

#[test]
fn a_source_without_secrets_says_which_variable_to_set() {
    let text = "[sources.eu]\nvendor = \"stripe\"\nsecrets_from = \"STRIPE_EU_SECRETS\"\n";
    let intake = Intake::from_vars(lookup(&[("SOURCES", text)])).unwrap();
    let warnings = intake.warnings();
    // Vendors that nobody named cause no warning.
    let texts: Vec<_> = warnings.iter().map(ToString::to_string).collect();
    assert_eq!(texts.len(), 3, "{texts:?}");
    let idle = "STRIPE_EU_SECRETS: POST /webhook/eu is not served: set STRIPE_EU_SECRETS";
    assert_eq!(texts[1], idle);
    assert!(texts[2].starts_with("ROUTING_SECRET: has its default value"), "{texts:?}");
    for (path, expected) in [
        ("/webhook/eu", "eu is not served: set STRIPE_EU_SECRETS"),
        ("/webhook/stripe", "stripe is not served: set STRIPE_SECRETS"),
        (
            "/webhook/standard-webhooks",
            "standard-webhooks is not served: set STANDARD_WEBHOOKS_SECRETS",
        ),
        ("/webhook/nobody", "no such path"),
        ("/webhook/", "no such path"),
    ] {
        assert_eq!(intake.sources.at(path).unwrap_err().to_string(), expected);
    }
    let vars = [("SOURCES", text), ("STRIPE_EU_SECRETS", "whsec_a, whsec_b")];
    let intake = Intake::from_vars(lookup(&vars)).unwrap();
    let source = intake.sources.at("/webhook/eu").unwrap();
    assert_eq!((source.secrets.len(), source.secrets_from.as_str()), (2, "STRIPE_EU_SECRETS"));
}
