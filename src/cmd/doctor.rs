//! `doctor`: checks the configuration, and the services that it names.

use std::{io::Write as _, net::SocketAddr, process::ExitCode};

use clap::Args;

use super::{address, intake, problems_beside_secret, shown::harmless, unread, variables};
use crate::{
    checkup,
    config::MetricsListen,
    finding::{Finding, Severity},
    store,
};

#[derive(Args)]
pub struct Options {
    /// Address that `serve` will listen on, in the form that its --listen accepts.
    #[arg(long, value_name = "ADDR", value_parser = address::parse_listen)]
    listen: Option<SocketAddr>,
    /// Print one JSON object per line.
    #[arg(long)]
    json: bool,
}

/// Prints all findings, errors last. The exit status is 1 if there is an error.
///
/// # Errors
/// Fails if the output cannot be written.
pub async fn run(options: Options) -> anyhow::Result<ExitCode> {
    let mut findings = match variables().await {
        Ok(variables) => look(options.listen, variables).await,
        Err(secret) => problems_beside_secret(&secret).into_iter().map(Finding::from).collect(),
    };
    findings.sort_by_key(|finding| finding.severity);
    let mut out = std::io::stdout().lock();
    for finding in &findings {
        if options.json {
            writeln!(out, "{}", serde_json::to_string(finding)?)?;
        } else {
            writeln!(out, "{:<8} {}", finding.severity, harmless(&finding.to_string()))?;
        }
    }
    let [errors, warnings] = [Severity::Error, Severity::Warning].map(|of| of.count(&findings));
    if !options.json {
        let (error, warning) = (plural(errors, "error"), plural(warnings, "warning"));
        writeln!(out, "{errors} {error}, {warnings} {warning}")?;
    }
    Ok(if errors == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn look(
    listen: Option<SocketAddr>,
    variables: impl Fn(&str) -> Option<String>,
) -> Vec<Finding> {
    let (mut config, mut problems, unread) = unread::read(variables);
    let address = address::settle(listen, &mut config, &mut problems);
    let has_store = address::has_store(&problems);
    let store = async { if has_store { store::examine(&config.store).await } else { Vec::new() } };
    let mut findings = checkup::whole(&config, store).await;
    if ["SOURCES", "SOURCES_FILE"].iter().all(|name| address::is_sound(name, &problems)) {
        findings.push(intake::sources(&config));
        if address::is_sound("ANSWER", &problems) {
            findings.push(intake::answers(&config));
        }
    }
    findings.extend(ports(address, config.metrics));
    findings.extend(unread);
    let warnings = config.warnings().into_iter();
    // A problem that is an error is not reported again as a warning.
    findings.extend(warnings.filter(|warning| address::is_sound(&warning.subject, &problems)));
    findings.extend(problems.into_iter().map(Finding::from));
    findings
}

fn plural(count: usize, word: &str) -> String {
    if count == 1 { word.into() } else { format!("{word}s") }
}

/// Listens on the addresses of `serve` for a moment.
fn ports(address: SocketAddr, metrics: MetricsListen) -> Vec<Finding> {
    let free = |variable: &str, address| match address::bind(variable, address) {
        Ok(_) => Finding::ok(variable, format!("{address} is free")),
        Err(taken) => taken.into(),
    };
    let metrics = match metrics {
        MetricsListen::Off => None,
        // If this port is taken, `serve` starts without /metrics.
        MetricsListen::Default => {
            let found = free(address::METRICS, MetricsListen::DEFAULT);
            Some(Finding { severity: found.severity.min(Severity::Warning), ..found })
        }
        MetricsListen::At(address) => Some(free(address::METRICS, address)),
    };
    [free(address::PORT, address)].into_iter().chain(metrics).collect()
}
