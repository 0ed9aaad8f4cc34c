//! `variables`: lists every variable with its default and its meaning.

use std::{io::Write as _, process::ExitCode};

use clap::Args;

use crate::config::VARIABLES;

#[derive(Args)]
pub struct Options {
    /// Print one JSON object per line.
    #[arg(long)]
    json: bool,
}

/// Standard AWS variables, which the AWS SDKs read.
const AWS: &str = "\
The Lambda destination, DynamoDB, QUEUE_URL, SECRETS_ARN and ID tokens also use the standard AWS
variables: AWS_REGION (a function's ARN has its own region), credentials, AWS_ENDPOINT_URL_LAMBDA,
AWS_ENDPOINT_URL_DYNAMODB, AWS_ENDPOINT_URL_SQS, AWS_ENDPOINT_URL_SECRETS_MANAGER and
AWS_ENDPOINT_URL_STS.";

/// Lists the variables.
///
/// # Errors
/// Fails if the output cannot be written.
pub fn run(options: &Options) -> anyhow::Result<ExitCode> {
    let mut out = std::io::stdout().lock();
    for variable in VARIABLES {
        if options.json {
            writeln!(out, "{}", serde_json::to_string(variable)?)?;
            continue;
        }
        write!(out, "{}", variable.name)?;
        if !variable.default.is_empty() {
            write!(out, " [default: {}]", variable.default)?;
        }
        writeln!(out, "\n        {}", variable.meaning)?;
    }
    if !options.json {
        writeln!(out, "\n{AWS}")?;
    }
    Ok(ExitCode::SUCCESS)
}
