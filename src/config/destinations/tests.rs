//! Tables of destinations that are read, and problems that are named.

use super::*;
use crate::{config::Config, testing::lookup};

const EU: &str = "[destinations.eu]\nkind = \"http\"\nurl = \"https://eu.example.com/in\"\n";
const US: &str = "[destinations.us]\nkind = \"lambda\"\nfunction = \"processor\"\n";

/// Returns the problems of a table, each as one text.
fn problems(vars: &[(&str, &str)]) -> Vec<String> {
    let (_, problems) = Config::read(lookup(vars));
    problems.into_iter().map(|one| format!("{}: {}", one.variable, one.remedy)).collect()
}

fn problems_of(table: &str) -> Vec<String> {
    problems(&[("DESTINATIONS", table)])
}

#[test]
fn a_table_gives_each_byte_a_place() {
    let table = format!(
        "{EU}bytes = \"0-9, 20-29\"\n{US}bytes = \"10-19,30-255\"\ninvocation = \"Event\"\n\
         payload = \"request\"\nrole_arn = \"arn:aws:iam::123456789012:role/r\"\n\
         [destinations.run_2]\nkind = \"cloud-run\"\nurl = \"http://localhost:1/\"\nbytes = \"none\"\n"
    );
    let sources =
        "[sources.s]\nvendor = \"stripe\"\nsecrets = [\"plainly\"]\ndestination = \"run_2\"\n";
    let both = format!("{sources}{table}");
    for vars in [
        vec![("DESTINATIONS", table.as_str())],
        vec![("DESTINATIONS", table.as_str()), ("SOURCES", sources)],
        vec![("SOURCES", both.as_str())],
    ] {
        let Config { intake, targets, .. } = Config::from_vars(lookup(&vars)).unwrap();
        let names: Vec<_> = targets.iter().map(|target| target.name.to_string()).collect();
        assert_eq!(names, ["eu", "run_2", "us"]);
        let [eu, run, us] = ["eu", "run_2", "us"].map(|name| name.parse::<Route>().unwrap());
        let shares = &intake.shares;
        assert_eq!(
            (shares.bytes(eu), shares.bytes(us)),
            ("0-9,20-29".into(), "10-19,30-255".into())
        );
        assert_eq!(shares.count(run), 0);
        let lambda = targets.get(us).unwrap().lambda().unwrap();
        assert_eq!((lambda.invocation, lambda.payload), (Invocation::Event, Payload::Request));
        assert!(lambda.role_arn.is_some());
        assert_eq!(targets.get(eu).unwrap().setting, "DESTINATIONS [destinations.eu]");
        assert_eq!(targets.get(run).unwrap().http().unwrap().url.as_str(), "http://localhost:1/");
    }
}

#[test]
fn the_bytes_must_cover_0_to_255_once_and_an_error_names_the_byte() {
    let all = "must give every byte from 0 to 255 to a destination";
    for (eu, us, said) in [
        ("0-99", "100-254", format!("DESTINATIONS: line 1: `destinations` {all}: byte 255 belongs to none")),
        ("1-99", "100-255", format!("DESTINATIONS: line 1: `destinations` {all}: byte 0 belongs to none")),
        ("0-99", "120-255", format!("DESTINATIONS: line 1: `destinations` {all}: bytes 100-119 belong to none")),
        ("none", "none", format!("DESTINATIONS: line 1: `destinations` {all}: bytes 0-255 belong to none")),
        ("0-100", "100-255", "DESTINATIONS: line 8: [destinations.us] `bytes` has byte 100, which belongs to eu".into()),
        ("0-99,7", "100-255", "DESTINATIONS: line 4: [destinations.eu] `bytes` has byte 7 twice".into()),
        ("0-256", "100-255", "DESTINATIONS: line 4: [destinations.eu] `bytes` has 256, and a byte is a number from 0 to 255".into()),
        ("9-0", "100-255", "DESTINATIONS: line 4: [destinations.eu] `bytes` has 9-0, which begins with the larger byte".into()),
    ] {
        let problems = problems_of(&format!("{EU}bytes = \"{eu}\"\n{US}bytes = \"{us}\"\n"));
        assert!(problems.contains(&said), "{said}: {problems:?}");
    }
    for malformed in ["", "a", "1-", "-1", "1--2", "1,,2", "+1", "0x1", "1;2", "1.0", " "] {
        let problems = problems_of(&format!("{EU}bytes = {malformed:?}\n"));
        let form =
            "`bytes` must have bytes and ranges of bytes, such as \"0-9,20-29\", or be \"none\"";
        assert!(problems.len() == 1 && problems[0].ends_with(form), "{malformed}: {problems:?}");
    }
}

#[test]
fn each_problem_of_a_table_is_named_with_its_line_and_field() {
    let eu = format!("{EU}bytes = \"0-255\"\n");
    let us = format!("{US}bytes = \"0-255\"\n");
    for (table, said) in [
        (
            format!("{eu}colour = \"red\"\n"),
            "line 5: [destinations.eu] `colour` is not a field of such a destination",
        ),
        (
            format!("{eu}function = \"f\"\n"),
            "line 5: [destinations.eu] `function` is not a field of such a destination",
        ),
        (
            format!("{us}url = \"https://x.dev\"\n"),
            "line 5: [destinations.us] `url` is not a field of such a destination",
        ),
        (
            eu.replace("http\"", "ftp\""),
            "line 2: [destinations.eu] `kind` must be \"cloud-run\", \"http\" or \"lambda\"",
        ),
        (
            eu.replace("kind = \"http\"\n", ""),
            "line 1: [destinations.eu] `kind` is missing: it is \"cloud-run\", \"http\" or \"lambda\"",
        ),
        (
            eu.replace("https://eu", "http://eu"),
            "line 3: [destinations.eu] `url` must be an https:// URL (http:// is allowed on loopback)",
        ),
        (
            eu.replace("url = \"https://eu.example.com/in\"\n", ""),
            "line 1: [destinations.eu] `url` is missing: it is the address that events are posted to",
        ),
        (
            us.replace("function = \"processor\"\n", ""),
            "line 1: [destinations.us] `function` is missing: it is the name or the ARN of the Lambda",
        ),
        (
            us.replace("processor", "a b"),
            "line 3: [destinations.us] `function` must be a function's name or ARN: NAME, NAME:ALIAS or arn:aws:lambda:REGION:ACCOUNT:function:NAME",
        ),
        (
            format!("{us}role_arn = \"r\"\n"),
            "line 5: [destinations.us] `role_arn` must be an ARN: arn:aws:iam::ACCOUNT:role/NAME",
        ),
        (
            format!("{us}invocation = \"Event\"\n"),
            "line 1: [destinations.us] `payload` must be \"request\" with invocation = \"Event\": Lambda drops the client context of a queued event, and key, vendor and attempt with it",
        ),
        (
            format!("{us}invocation = \"Later\"\n"),
            "line 5: [destinations.us] `invocation` must be \"RequestResponse\" or \"Event\"",
        ),
        (
            format!("{us}payload = 1\n"),
            "line 5: [destinations.us] `payload` must be a text in quotes",
        ),
        (
            EU.to_owned(),
            "line 1: [destinations.eu] `bytes` is missing: it has the route bytes of the destination: \"0-99\", or \"none\"",
        ),
        (
            eu.replace("destinations.eu", "destinations.EU"),
            "line 1: [destinations.EU] has a wrong name, which must be 1 to 32 characters of a-z, 0-9, `-` and `_`, and begin with a letter or a digit",
        ),
        ("[destinations]\neu = 1\n".into(), "line 2: [destinations.eu] must be a table"),
        (
            "destinations = 1\n".into(),
            "line 1: `destinations` is unknown: write [destinations.NAME]",
        ),
        (format!("{eu}[sources.x]\n"), "line 5: `sources` is unknown: write [destinations.NAME]"),
        ("[destinations.eu\n".into(), "line 1: is not TOML: "),
    ] {
        let problems = problems_of(&table);
        let said = format!("DESTINATIONS: {said}");
        let is_said = problems
            .iter()
            .any(|one| one == &said || (said.ends_with(": ") && one.starts_with(&said)));
        assert!(is_said, "{said}: {problems:?}");
    }
}

#[test]
fn a_table_has_at_most_64_destinations() {
    let table = |count: usize| {
        let rest = (1..count)
            .map(|number| EU.replace("eu]", &format!("eu-{number}]")) + "bytes = \"none\"\n");
        format!("{EU}bytes = \"0-255\"\n{}", rest.collect::<String>())
    };
    assert_eq!(problems_of(&table(MAX_DESTINATIONS)), [""; 0]);
    let too_many = ["DESTINATIONS: line 1: `destinations` must have at most 64 tables"];
    assert_eq!(problems_of(&table(MAX_DESTINATIONS + 1)), too_many);
}

#[test]
fn what_the_table_takes_the_place_of_must_not_be_set_beside_it() {
    let table = format!("{EU}bytes = \"0-255\"\n");
    for (variable, value) in [
        ("ROUTE_THRESHOLD", "128"),
        ("GCP_TARGET_URL", "https://x.dev"),
        ("GCP_CA_FILE", "/nowhere"),
        ("GCP_AUTH", "id-token"),
        ("GCP_AUDIENCE", "eu"),
        ("GCP_CLIENT_CERT_FILE", "/nowhere"),
        ("GCP_CLIENT_KEY_FILE", "/nowhere"),
        ("GCP_MAX_CONCURRENT", "1"),
        ("GCP_MAX_PER_SECOND", "1"),
        ("AWS_MAX_CONCURRENT", "1"),
        ("AWS_MAX_PER_SECOND", "1"),
        ("AWS_TARGET_FUNCTION", "processor"),
        ("AWS_TARGET_ROLE_ARN", "arn:aws:iam::123456789012:role/r"),
        ("AWS_TARGET_INVOCATION", "Event"),
        ("AWS_TARGET_PAYLOAD", "request"),
    ] {
        let problems = problems(&[("DESTINATIONS", &table), (variable, value)]);
        let said =
            format!("{variable}: must not be set beside a table of destinations, whose field");
        assert!(problems.len() == 1 && problems[0].starts_with(&said), "{problems:?}");
    }
    let stripe = "[sources.s]\nvendor = \"stripe\"\nsecrets = [\"plainly\"]\n";
    for (rule, said) in [
        (
            "threshold = 64",
            "`threshold` must not be set beside a table of destinations: `destination` takes its place",
        ),
        ("destination = \"gcp\"", "`destination` names no destination of the table: eu"),
    ] {
        let sources = format!("{stripe}{rule}\n");
        let expected = format!("SOURCES: line 4: [sources.s] {said}");
        assert_eq!(problems(&[("DESTINATIONS", &table), ("SOURCES", &sources)]), [expected]);
    }
    let both = problems(&[("DESTINATIONS", &table), ("SOURCES", &format!("{stripe}{table}"))]);
    assert_eq!(both, ["DESTINATIONS: must not be set together with [destinations] in SOURCES"]);
}

#[test]
fn a_destination_may_not_be_the_router_itself() {
    let table = format!("{US}bytes = \"0-255\"\n");
    let lambda = [("AWS_LAMBDA_FUNCTION_NAME", "processor"), ("DESTINATIONS", table.as_str())];
    let problems = problems(&lambda);
    assert!(
        problems[0]
            .starts_with("DESTINATIONS: line 3: [destinations.us] `function` is this function"),
        "{problems:?}"
    );
}

#[test]
fn a_destination_may_need_an_id_token() {
    let us = format!("{US}bytes = \"128-255\"\n");
    let of = |fields: &str| format!("{EU}bytes = \"0-127\"\n{fields}{us}");
    let token = |fields: &str, more: &[(&str, &str)]| {
        let table = of(fields);
        let vars = [&[("DESTINATIONS", table.as_str())], more].concat();
        let Config { targets, .. } = Config::from_vars(lookup(&vars)).unwrap();
        let eu = targets.get("eu".parse().unwrap()).unwrap();
        eu.http().unwrap().id_token.clone().map(|token| token.audience)
    };
    assert_eq!(token("auth = \"none\"\n", &[]), None);
    let origin = "https://eu.example.com";
    assert_eq!(token("auth = \"id-token\"\n", &[]).as_deref(), Some(origin));
    let named = "auth = \"id-token\"\naudience = \"eu\"\n";
    assert_eq!(token(named, &[]).as_deref(), Some("eu"));

    let setting = "DESTINATIONS [destinations.eu]";
    let wrong = problems_of(&of("auth = \"token\"\n"));
    assert_eq!(wrong, [format!("{setting} auth: must be none or id-token")]);
    let table = of("auth = \"id-token\"\n");
    let vars = [("DESTINATIONS", table.as_str()), ("GCP_CREDENTIALS", "{}")];
    let wrong = problems(&vars);
    assert!(wrong.len() == 1 && wrong[0].starts_with("GCP_CREDENTIALS: "), "{wrong:?}");
}

#[test]
fn a_password_in_a_url_is_warned_of_and_not_shown() {
    let mirror = "mirror = \"https://user:plainly-secret@x.dev/?token=plainly-secret\"\n";
    let table = EU.replace("https://eu", "https://user:plainly-secret@eu");
    let table = format!("{table}bytes = \"0-255\"\n{mirror}");
    let (config, problems) = Config::read(lookup(&[("DESTINATIONS", &table)]));
    assert!(problems.is_empty());
    let warnings = config.warnings();
    let of_eu = warnings.iter().filter(|one| one.subject == "DESTINATIONS [destinations.eu]");
    let texts: Vec<_> = of_eu.map(|warning| &warning.text).collect();
    assert!(texts.len() == 2 && texts[0].contains("contains a user or a password"), "{texts:?}");
    assert!(!format!("{config:?}").contains("plainly-secret"));
}
