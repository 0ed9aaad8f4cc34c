//! The sample destination, as a Lambda function and as an HTTP service.

#![forbid(unsafe_code)]

use std::process::ExitCode;

#[tokio::main]
async fn main() -> ExitCode {
    webhook_router::telemetry::init(tracing::Level::INFO);
    match webhook_router::cmd::processor::run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
