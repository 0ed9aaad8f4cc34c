//! The TOML of DESTINATIONS: every text is a table or a list of problems. In a table, each byte belongs to a
//! destination, and the bytes of all destinations, read again from their texts, are the table.

use webhook_router::config::{Config, shares};

/// Checks one input, and panics if it finds a fault.
pub fn check(text: &str) {
    let variables = |name: &str| match name {
        "ROUTING_SECRET" => Some("fuzz-routing-secret".to_owned()),
        "DESTINATIONS" => Some(text.to_owned()),
        _ => None,
    };
    match Config::from_vars(variables) {
        Ok(Config { intake, targets, .. }) => {
            let names = targets.routes();
            let mut bytes = 0;
            for name in &names {
                assert!(targets.get(*name).is_some() && name.as_str().parse() == Ok(*name));
                bytes += intake.shares.count(*name);
            }
            assert_eq!(bytes, 256);
            assert!((0..=255).all(|byte| names.contains(&intake.shares.of(byte))));
            assert_eq!(shares(text), Ok(intake.shares.clone()));
            let tables = intake.shares.routes().into_iter().map(|name| {
                let bytes = intake.shares.bytes(name);
                format!("[destinations.{name}]\nkind = \"lambda\"\nfunction = \"f\"\nbytes = {bytes:?}\n")
            });
            assert_eq!(shares(&tables.collect::<String>()), Ok(intake.shares));
        }
        Err(problems) => {
            assert!(!problems.to_string().is_empty());
            let _one_or_the_other = shares(text).is_ok();
        }
    }
}
