//! Deployments with the Makefile, as far as they work without AWS.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    process::Command,
};

use aws_sdk_lambda::Client;
use serde_json::Value;

use crate::{
    emulator::Artefact,
    servers::Moto,
    stack::TEMPLATE,
    support::{client, end_of, get, outside_of_cargo, sdk, venv},
};

/// Runs make, and returns its output and whether it succeeded.
fn run_make(arguments: &[&str]) -> (String, bool) {
    let mut make = Command::new("make");
    // Variables of an outer make must not reach this one.
    for name in ["MAKEFLAGS", "MAKEOVERRIDES", "MAKELEVEL", "ARCH", "STACK"] {
        make.env_remove(name);
    }
    let output = make.args(arguments).output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    (String::from_utf8_lossy(&said).into_owned(), output.status.success())
}

fn make(arguments: &[&str]) -> String {
    let (said, succeeded) = run_make(arguments);
    assert!(succeeded, "{said}");
    said
}

#[test]
fn sam_has_built_both_functions() {
    // The build runs before the tests. A test must not build here while others unpack the result.
    let built = Path::new(env!("CARGO_MANIFEST_DIR")).join(".aws-sam/build");
    assert!(built.join("template.yaml").exists());
    let elsewhere = Command::new(built.join("Router/bootstrap")).output().unwrap();
    let said = String::from_utf8(elsewhere.stderr).unwrap();
    assert!(said.contains("`webhook-router serve`"), "{said}");
    assert!(built.join("Processor/bootstrap").exists());
}

#[test]
fn a_panic_unwinds_in_the_deployed_functions() {
    // cargo-lambda lets a panic end the process if the profile says nothing. No other test would notice it,
    // because released builds have no point that panics. A program that unwinds has a table of what to drop.
    for function in ["webhook-function", "webhook-processor"] {
        let artefact = Artefact::unpack(function);
        let sections =
            Command::new("readelf").arg("-SW").arg(artefact.bootstrap()).output().unwrap();
        let sections = String::from_utf8(sections.stdout).unwrap();
        let table = sections.lines().find(|line| line.contains(".gcc_except_table"));
        let size = table.and_then(|line| line.split_whitespace().rev().nth(5));
        let size = usize::from_str_radix(size.expect(&sections), 16).unwrap();
        assert!(size > 50_000, "{function}: {size} bytes");
    }
}

#[test]
fn make_deploy_asks_the_first_time_and_then_takes_what_it_was_told() {
    // Uses the code of `sam deploy --guided` to save the settings.
    const SAVE: &str = "\
import click, sys
from samcli.commands.deploy.guided_config import GuidedConfig
told = dict(GcpTargetUrl='https://x.run.app', Architecture='arm64', Store='dynamodb')
told = {name: dict(Value=value, Hidden=False) for name, value in told.items()}
with click.Context(click.Command('deploy'), info_name='deploy'):
    config = GuidedConfig('template.yaml', 'parameters')
    config.save_config(told, 'one', sys.argv[1], stack_name='one')";
    let folder = with_tools();
    let plan = |arguments: &[&str]| {
        let in_folder = ["-n", "-C", folder.path().to_str().unwrap()];
        let said = make(&[&in_folder, arguments].concat());
        (said.contains("--guided"), said.contains("build --parameter-overrides Architecture=arm64"))
    };
    assert_eq!(plan(&["deploy", "STACK=one"]), (true, false));
    assert_eq!(plan(&["deploy", "STACK=one", "ARCH=arm64"]), (true, true));
    let saved = folder.path().join("samconfig.toml");
    let mut save = Command::new(venv("python"));
    assert!(save.args(["-c", SAVE]).arg(&saved).output().unwrap().status.success());
    assert_eq!(plan(&["deploy", "STACK=one"]), (false, true));
    assert_eq!(plan(&["deploy", "STACK=one", "ARCH=arm64"]), (false, true));
    assert_eq!(plan(&["deploy", "STACK=another"]), (true, false));
    // Functions of another architecture than the stack's are refused before they are built.
    let folder = folder.path().to_str().unwrap();
    let (said, succeeded) = run_make(&["-C", folder, "deploy", "STACK=one", "ARCH=x86_64"]);
    assert!(!succeeded && said.contains("samconfig.toml says Architecture=arm64"), "{said}");
}

/// A folder in which make finds its tools already installed.
fn with_tools() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for file in ["Makefile", "deploy-requirements.txt"] {
        std::fs::copy(file, folder.path().join(file)).unwrap();
    }
    let tools = folder.path().join("target/venv");
    std::fs::create_dir_all(&tools).unwrap();
    std::fs::write(tools.join("tools"), "").unwrap();
    folder
}

#[test]
fn make_builds_for_lambda_s_two_architectures_alone() {
    let folder = with_tools();
    let folder = folder.path().to_str().unwrap();
    for target in ["build", "build-sam", "deploy"] {
        for architecture in ["amd64", "aarch64", "x86_64 arm64", ""] {
            let architecture = format!("ARCH={architecture}");
            let (said, succeeded) = run_make(&["-C", folder, target, &architecture]);
            let is_refused = !succeeded && said.contains("ARCH must be x86_64 or arm64");
            assert!(is_refused, "{target} {architecture}: {said}");
        }
    }
    make(&["-n", "-C", folder, "build", "ARCH=arm64"]);
}

#[test]
fn make_watch_on_a_taken_port_fails_and_deletes_nothing() {
    // Another process may already hold the port.
    let _taken = std::net::TcpListener::bind("127.0.0.1:9000");
    let folder = with_tools();
    let store = folder.path().join("target/webhook-router.db");
    std::fs::write(&store, "").unwrap();
    let (said, succeeded) = run_make(&["-C", folder.path().to_str().unwrap(), "watch"]);
    assert!(!succeeded && said.contains("Port 9000 of loopback is taken"), "{said}");
    assert!(store.exists());
}

#[test]
fn what_others_publish_is_pinned_by_commit_or_checksum() {
    let pin = |line: &str, mark: &str, digits: usize| {
        let (_, rest) = line.split_once(mark).unwrap_or_else(|| panic!("no {mark} in {line}"));
        let pin: String = rest.chars().take_while(char::is_ascii_hexdigit).collect();
        assert_eq!(pin.len(), digits, "{line}");
    };
    let workflow = include_str!("../../.github/workflows/ci.yml");
    let uses: Vec<_> = workflow.lines().filter(|line| line.contains("uses:")).collect();
    assert!(!uses.is_empty());
    uses.iter().for_each(|line| pin(line, "@", 40));

    let makefile = include_str!("../../Makefile");
    for options in makefile.lines().filter(|line| line.contains("pip install")) {
        assert!(options.contains("--no-deps --require-hashes"), "{options}");
    }
    let packed = makefile.lines().find(|line| line.starts_with("DYNAMODB_SHA256")).unwrap();
    pin(packed, ":= ", 64);

    // Both requirement files are installed into one environment.
    let versions = |requirements: &'static str| {
        let mut versions = BTreeMap::<_, BTreeSet<_>>::new();
        for line in requirements.lines().filter(|line| !line.starts_with('#')) {
            match line.trim_start().strip_prefix("--hash=sha256:") {
                Some(_) => pin(line, "sha256:", 64),
                None => {
                    let (name, version) = line.split_once("==").unwrap();
                    let version = version.split_whitespace().next().unwrap();
                    versions.entry(name).or_default().insert(version);
                }
            }
        }
        versions
    };
    let all = versions(include_str!("../requirements.txt"));
    for (name, pinned) in versions(include_str!("../../deploy-requirements.txt")) {
        assert_eq!(all.get(name), Some(&pinned), "{name}");
    }
    let lock: Value = serde_json::from_str(include_str!("../libraries/package-lock.json")).unwrap();
    for (name, package) in lock["packages"].as_object().unwrap() {
        // The first entry is the list of the packages itself.
        assert!(name.is_empty() || package["integrity"].is_string(), "{name}");
    }

    // The required versions are the pinned versions.
    let benches = versions(include_str!("../../benches/requirements.txt"));
    for (asked, pinned) in [
        (include_str!("../../deploy-requirements.in"), &all),
        (include_str!("../requirements.in"), &all),
        (include_str!("../../benches/requirements.in"), &benches),
    ] {
        for line in asked.lines().filter(|line| line.contains("==")) {
            let (name, version) = line.split_once("==").unwrap();
            let name = name.split('[').next().unwrap();
            assert!(pinned[name].contains(version), "{line}: run `make requirements`");
        }
    }
}

#[tokio::test]
async fn cargo_lambda_deploys_with_the_settings_of_the_manifest_which_are_the_template_s() {
    let (moto, folder) = (Moto::start(), tempfile::tempdir().unwrap());
    let file = folder.path().join("router.env");
    std::fs::write(&file, "STORE_URL=dynamodb://webhook-router\nROUTE_THRESHOLD=256\n").unwrap();
    let vars = [
        ("AWS_ENDPOINT_URL", moto.url.as_str()),
        ("AWS_REGION", "us-east-1"),
        ("AWS_ACCESS_KEY_ID", "test"),
        ("AWS_SECRET_ACCESS_KEY", "test"),
    ];
    let file = format!("ENV_FILE={}", file.display());
    let role = format!("ROLE={}", create_role(&moto).await);
    let plan = make(&["-n", "deploy-cargo-lambda", &role, &file]);
    let deploy = plan.lines().find(|line| line.contains("cargo-lambda lambda deploy")).unwrap();
    // Deploying rewrites the archive, which other tests unpack. This test therefore uses its own
    // copy of the archive.
    let built = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/lambda/webhook-function");
    assert!(!built.join("bootstrap").exists(), "it would be deployed in place of the archive");
    let copy = folder.path().join("webhook-function");
    std::fs::create_dir(&copy).unwrap();
    std::fs::copy(built.join("bootstrap.zip"), copy.join("bootstrap.zip")).unwrap();
    let deploy = format!("{deploy} --lambda-dir {}", folder.path().display());
    let mut shell = outside_of_cargo("sh");
    let said = end_of(shell.args(["-c", &deploy]).envs(vars));
    assert!(said.status.success(), "{said:?}");
    let said = String::from_utf8_lossy(&said.stdout);
    assert!(said.contains("lambda-url.us-east-1.on.aws"), "{said}");

    let lambda = Client::new(&sdk(&moto.url));
    let deployed =
        lambda.get_function_configuration().function_name("webhook-router").send().await.unwrap();
    let number = |parameter: &str| TEMPLATE["Parameters"][parameter]["Default"].as_i64();
    assert_eq!(deployed.memory_size().map(i64::from), number("MemorySize"));
    assert_eq!(deployed.timeout().map(i64::from), number("Timeout"));
    assert_eq!(deployed.runtime().unwrap().as_str(), "provided.al2023");
    assert_eq!(deployed.tracing_config().unwrap().mode().unwrap().as_str(), "Active");
    let variables = deployed.environment().unwrap().variables().unwrap();
    assert_eq!((variables.len(), variables["ROUTE_THRESHOLD"].as_str()), (2, "256"));
    // Deploying makes the URL public, as the template does.
    let policy = lambda.get_policy().function_name("webhook-router").send().await.unwrap();
    let policy: Value = serde_json::from_str(policy.policy().unwrap()).unwrap();
    let statements = policy["Statement"].as_array().unwrap();
    assert_eq!(statements.len(), 2);
    for (statement, name) in statements.iter().zip(["PublicUrl", "PublicUrlInvoke"]) {
        let ours = &TEMPLATE["Resources"][name]["Properties"];
        for member in ["Action", "Principal", "FunctionUrlAuthType", "InvokedViaFunctionUrl"] {
            assert_eq!(statement.get(member), ours.get(member), "{member}");
        }
    }
}

/// Creates a role for the function with a plain IAM request. The IAM SDK would be a dependency for
/// this alone.
async fn create_role(moto: &Moto) -> String {
    let request = client()
        .post(&moto.url)
        .header(
            "authorization",
            "AWS4-HMAC-SHA256 Credential=test/20260101/us-east-1/iam/aws4_request",
        )
        .header("content-type", "application/x-www-form-urlencoded")
        .body("Action=CreateRole&Version=2010-05-08&RoleName=router&AssumeRolePolicyDocument={}");
    let got = get(request.send().await).await;
    assert_eq!(got.status, 200, "{}", got.text());
    "arn:aws:iam::123456789012:role/router".into()
}
