//! docs/sources.md and README.md describe every vendor as the table of vendors has it.

use webhook_router::source::vendors;

#[test]
fn the_documentation_of_every_vendor_is_named_and_described() {
    let docs = include_str!("../../docs/sources.md");
    let readme = include_str!("../../README.md");
    let count = format!("{} vendors", vendors().len());
    for (file, text) in [("docs/sources.md", docs), ("README.md", readme)] {
        assert!(text.contains(&count), "{file} does not say \"{count}\"");
    }
    for vendor in vendors() {
        let name = vendor.name();
        let source = vendor.description().documentation;
        assert!(source.starts_with("https://"), "{name}");
        let row = format!("]({source}) | `/webhook/{name}`");
        assert!(docs.contains(&row), "docs/sources.md does not have {row}");
        let (before, _) = docs.split_once(&row).unwrap();
        // Some names say which of a vendor's webhooks is meant.
        let (_, shown) = before.rsplit_once("| [").unwrap();
        let shown = shown.split(", ").next().unwrap();
        let [_, retries] = ["Type and time", "Retries"].map(|section| {
            let (_, table) = docs.split_once(&format!("\n### {section}\n")).unwrap();
            let (table, _) = table.split_once("\n#").unwrap();
            let is_row = |line: &&str| {
                let rest = line.strip_prefix(&format!("| {shown}"));
                rest.is_some_and(|rest| rest.starts_with(" |") || rest.starts_with(", "))
            };
            let row = table.lines().find(is_row);
            row.unwrap_or_else(|| {
                panic!("docs/sources.md, \"{section}\", has no row that begins with {shown}")
            })
        });
        let remembered = retries.split('|').nth(5).unwrap().trim();
        let (time, _) = remembered.split_once(", ").unwrap_or((remembered, ""));
        let time = humantime::parse_duration(time).unwrap_or_default();
        let horizon = vendor.description().retry_horizon;
        assert_eq!(time, horizon, "{shown}: retry_horizon is not what docs/sources.md says");
        assert_eq!(
            time.is_zero(),
            remembered == "`DEDUP_TTL_SECONDS`",
            "{shown}: *remembered* must begin with a time (3 days), or be `DEDUP_TTL_SECONDS`"
        );
    }
}
