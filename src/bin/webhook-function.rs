//! The router as a Lambda function, and nothing else. It is the deployed function, and a third
//! smaller than `webhook-router`, which has SQLite, a server and the operator's commands, too.

#![forbid(unsafe_code)]

use std::process::ExitCode;

use webhook_router::{cmd, store};

fn main() -> ExitCode {
    if !cmd::started_by_lambda() {
        eprintln!("error: this program runs only in Lambda: elsewhere, use `webhook-router serve`");
        return ExitCode::FAILURE;
    }
    match cmd::lambda::start(store::open_remote) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
