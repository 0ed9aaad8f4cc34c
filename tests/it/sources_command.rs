//! `sources` lists the sources that are served and those that are not.

use serde_json::{Value, json};
use webhook_router::source::vendors;

use crate::{cli::router, event_command::printed};

#[test]
fn sources_lists_what_is_served_and_what_is_not_and_why() {
    let sources = r#"
        [sources.eu]
        vendor = "stripe"
        secrets = ["plainly-one", "plainly-two"]
        key = "content"
        ignore = ["/pending_webhooks"]
        only = ["invoice.*", "charge.refunded"]
        where = { "/livemode" = true }
        threshold = 64

        [sources.idle]
        vendor = "github"
        secrets_from = "IDLE_SECRETS"
    "#;
    let vars = [
        ("SOURCES", sources),
        ("STRIPE_SECRETS", "plainly-three"),
        ("SQUARE_SECRETS", "plainly-four"),
        ("ENVELOPE_SECRETS", "whsec_dGVzdC1vbmx5LXZlbmRvci1rZXktMDE="),
    ];
    let text = router(&["sources"], &vars);
    let text = printed(&text);
    assert!(!text.contains("plainly"), "{text}");
    let (served, idle) = text.split_once("not served:\n").unwrap();
    let line = |part: &str, path: &str| {
        let found = part.lines().find(|line| line.split_whitespace().next() == Some(path));
        let found = found.unwrap_or_else(|| panic!("{path} is not in {part}"));
        found.split_whitespace().skip(1).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(line(served, "/webhook"), "envelope ENVELOPE_SECRETS (1)");
    assert_eq!(line(served, "/webhook/stripe"), "stripe STRIPE_SECRETS (1)");
    assert_eq!(
        line(served, "/webhook/eu"),
        "stripe SOURCES (2) ignore=/pending_webhooks key=content \
         only=invoice.*,charge.refunded threshold=64 where=/livemode = true"
    );
    assert_eq!(line(idle, "/webhook/idle"), "github set IDLE_SECRETS");
    assert_eq!(line(idle, "/webhook/adyen"), "adyen set ADYEN_SECRETS");
    assert!(line(idle, "/webhook/square").starts_with("square set PUBLIC_URL (or `url` of"));

    let objects = router(&["sources", "--json"], &vars);
    let objects: Vec<Value> =
        printed(&objects).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(objects.len(), vendors().len() + 3);
    let eu = objects.iter().find(|one| one["source"] == "eu").unwrap();
    assert_eq!(
        *eu,
        json!({
            "path": "/webhook/eu",
            "source": "eu",
            "vendor": "stripe",
            "served": true,
            "secrets_from": "SOURCES",
            "secrets": 2,
            "rules": {
                "key": "content",
                "ignore": ["/pending_webhooks"],
                "only": ["invoice.*", "charge.refunded"],
                "where": ["/livemode = true"],
                "threshold": 64,
            },
            "remedy": null,
        })
    );
    // Nothing is configured, so nothing is served.
    let nothing = router(&["sources"], &[]);
    assert!(
        printed(&nothing).starts_with("served: nothing\nnot served:\n"),
        "{}",
        printed(&nothing)
    );
    let open = router(&["sources"], &[("ALLOW_UNSIGNED", "true")]);
    assert!(printed(&open).contains("envelope           ALLOW_UNSIGNED"), "{}", printed(&open));
}
