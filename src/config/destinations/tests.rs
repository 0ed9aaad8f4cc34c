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
        ("3-99", "105-254", format!("DESTINATIONS: line 1: `destinations` {all}: bytes 0-2,100-104,255 belong to none")),
        ("0-110", "100-109,7,5,108-255", "DESTINATIONS: line 8: [destinations.us] `bytes` has bytes 5,7,100-110, which belong to eu".into()),
        ("0-99,7,50-52,51", "100-255", "DESTINATIONS: line 4: [destinations.eu] `bytes` has bytes 7,50-52 twice".into()),
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
fn all_bytes_that_belong_to_none_or_to_several_are_named_at_once() {
    let lab = EU.replace("eu", "lab") + "bytes = \"3,8-20\"\n";
    let table = format!("{EU}bytes = \"0-9\"\n{lab}{US}bytes = \"9-11,200-254\"\n");
    let expected = [
        "line 8: [destinations.lab] `bytes` has bytes 3,8-9, which belong to eu",
        "line 12: [destinations.us] `bytes` has byte 9, which belongs to eu",
        "line 12: [destinations.us] `bytes` has bytes 10-11, which belong to lab",
        "line 1: `destinations` must give every byte from 0 to 255 to a destination: bytes \
         21-199,255 belong to none",
    ];
    assert_eq!(problems_of(&table), expected.map(|one| format!("DESTINATIONS: {one}")));
    // The shares of `plan-shift` have the same problems.
    let of_shares: Vec<_> = shares(&table).unwrap_err().iter().map(Problem::to_string).collect();
    assert_eq!(of_shares, expected);
}

#[test]
fn each_problem_of_a_table_is_named_with_its_line_and_field() {
    let eu = format!("{EU}bytes = \"0-255\"\n");
    let us = format!("{US}bytes = \"0-255\"\n");
    for (table, said) in [
        (
            format!("{eu}colour = \"red\"\n"),
            "line 5: [destinations.eu] `colour` is not a field of this kind of destination",
        ),
        (
            format!("{eu}function = \"f\"\n"),
            "line 5: [destinations.eu] `function` is not a field of this kind of destination",
        ),
        (
            format!("{us}url = \"https://x.dev\"\n"),
            "line 5: [destinations.us] `url` is not a field of this kind of destination",
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

    let table = of("auth = \"id-token\"\n");
    let vars = [("DESTINATIONS", table.as_str()), ("GCP_CREDENTIALS", "{}")];
    let wrong = problems(&vars);
    assert!(wrong.len() == 1 && wrong[0].starts_with("GCP_CREDENTIALS: "), "{wrong:?}");
}

#[test]
fn problems_of_id_tokens_are_told_with_all_others_of_the_table() {
    let auth = "auth = \"id-token\"\n";
    let user = EU.replace("https://eu", "https://user:plainly@eu");
    let with_user = "line 3: [destinations.eu] `url` contains a user or a password, and auth = \
                     \"id-token\" sends an ID token in their place: remove the user and the \
                     password, or that setting";
    let audience = "line 6: [destinations.eu] `audience` must be the service's URL or another of its \
                    audiences, in ASCII and without spaces";
    for (table, said) in [
        (
            format!("{EU}auth = \"token\"\n"),
            vec!["line 4: [destinations.eu] `auth` must be none or id-token"],
        ),
        (
            format!("{EU}auth = 1\n"),
            vec!["line 4: [destinations.eu] `auth` must be a text in quotes"],
        ),
        (format!("{EU}\n{auth}audience = \"a b\"\n"), vec![audience]),
        (format!("{user}{auth}"), vec![with_user]),
        // The URL cannot be read, and the audience is checked all the same.
        (
            format!("{EU}\n{auth}audience = \"a b\"\n").replace("https://", "ftp://"),
            vec![
                "line 3: [destinations.eu] `url` must be an https:// URL (http:// is allowed on loopback)",
                audience,
            ],
        ),
    ] {
        // Another field of the table has a problem as well.
        let table = format!("{table}bytes = \"0-127\"\n{US}bytes = \"127-255\"\n");
        let line = 1 + table.lines().position(|line| line.contains("127-255")).unwrap();
        let shares =
            format!("line {line}: [destinations.us] `bytes` has byte 127, which belongs to eu");
        for variable in ["DESTINATIONS", "SOURCES"] {
            let all = said.iter().copied().chain([shares.as_str()]);
            let all: Vec<_> = all.map(|one| format!("{variable}: {one}")).collect();
            assert_eq!(problems(&[(variable, &table)]), all);
        }
    }
    // The credentials are checked although the table has a problem.
    let table = format!("{EU}{auth}bytes = \"1-255\"\n");
    let wrong = problems(&[("DESTINATIONS", &table), ("GCP_CREDENTIALS", "{}")]);
    assert!(wrong.len() == 2 && wrong[0].starts_with("GCP_CREDENTIALS: "), "{wrong:?}");
}

#[test]
fn an_audience_that_no_token_has_is_in_doubt() {
    let table = format!("{EU}bytes = \"0-255\"\naudience = \"eu\"\n");
    for variable in ["DESTINATIONS", "SOURCES"] {
        let (config, problems) = Config::read(lookup(&[(variable, &table)]));
        assert!(problems.is_empty(), "{problems:?}");
        let said = "line 5: [destinations.eu] `audience` has no effect without auth = \"id-token\"";
        let doubts: Vec<_> = config.doubts.iter().map(|one| (&*one.subject, &*one.text)).collect();
        assert_eq!(doubts, [(variable, said)]);
    }
}

#[test]
fn a_setting_is_named_by_the_variable_that_has_the_table() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("sources.toml");
    let table = format!("{EU}bytes = \"0-255\"\n");
    std::fs::write(&file, &table).unwrap();
    for (variable, value) in [
        ("DESTINATIONS", table.as_str()),
        ("SOURCES", table.as_str()),
        ("SOURCES_FILE", file.to_str().unwrap()),
    ] {
        let config = Config::from_vars(lookup(&[(variable, value)])).unwrap();
        let settings: Vec<_> = config.targets.iter().map(|one| one.setting.as_str()).collect();
        assert_eq!(settings, [format!("{variable} [destinations.eu]")]);
    }
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
