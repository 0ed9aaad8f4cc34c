//! The TOML of SOURCES: every text is a list of sources or a list of problems, each with a line of the
//! text. Each source is found at its path.

use webhook_router::config::Config;

/// Checks one input, and panics if it finds a fault.
pub fn check(text: &str) {
    let variables = |name: &str| match name {
        "ROUTING_SECRET" => Some("fuzz-routing-secret".to_owned()),
        "PUBLIC_URL" => Some("https://hooks.example.com/in".to_owned()),
        "SOURCES" => Some(text.to_owned()),
        "FUZZ_SECRETS" => Some("plainly-one,plainly-two".to_owned()),
        "GCP_TARGET_URL" => Some("https://service.example.com/".to_owned()),
        "AWS_TARGET_FUNCTION" => Some("processor".to_owned()),
        _ => None,
    };
    match Config::from_vars(variables) {
        Ok(Config { intake, .. }) => {
            for source in intake.sources.iter() {
                assert_eq!(intake.sources.at(&source.path()).is_ok(), source.is_served());
                let _headers = source.vendor.signature_headers();
            }
        }
        Err(problems) => assert!(!problems.to_string().is_empty()),
    }
}
