//! The sample destination, as a Lambda function and as an HTTP service.

#![forbid(unsafe_code)]

use std::process::ExitCode;

use clap::Parser;
use webhook_router::{cmd::processor, telemetry};

/// The sample destination of webhook-router: processes each event once by its key, and lists the
/// received events at /receipts.
///
/// In Lambda, it runs as a function. Elsewhere, it runs as an HTTP service. The service takes
/// events as Cloud Run does, and also through an Invoke API.
#[derive(Parser)]
#[command(version, after_help = VARIABLES)]
struct Cli {}

const VARIABLES: &str = "Variables:
  FORWARD_SECRETS  accept only events that one of these secrets signed: the router's
                   FORWARD_SECRETS; for a private key among them (whsk_), its public
                   key (whpk_) [default: accept all events]
  PORT             listen on this port of all IPv4 addresses [default: 127.0.0.1:9090]
  PROCESSOR_DB     SQLite file of the receipts [default: in memory]
  RUST_LOG         log level [default: info]";

#[tokio::main]
async fn main() -> ExitCode {
    Cli::parse();
    let run = async {
        telemetry::init(tracing::Level::INFO, false)?;
        processor::run().await
    };
    match run.await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
