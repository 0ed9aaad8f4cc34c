//! Runs a command, prints its error, and exits.

#![forbid(unsafe_code)]

use std::{net::SocketAddr, process::ExitCode};

use clap::{Parser, Subcommand};
use tracing::Level;
use webhook_router::{
    cmd::{self, dead_letters, demo, explain, inspect, replay, serve},
    config::VARIABLES,
    telemetry,
};

/// Receives vendors' webhooks, delivers each event once, and always to the same destination.
///
/// In Lambda, it runs as the function behind a Function URL, an API Gateway or a load balancer.
/// Elsewhere, it takes a command.
#[derive(Parser)]
#[command(version, after_long_help = variables(), arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the router as an HTTP server.
    #[command(after_long_help = variables())]
    Serve {
        /// Address to listen on [default: 127.0.0.1:8080, or 0.0.0.0:$PORT when PORT is set].
        #[arg(long, value_name = "ADDR")]
        listen: Option<SocketAddr>,
    },
    /// Print the key, the route and everything else that the router derives from a body. Needs no
    /// store.
    Explain(explain::Options),
    /// Print everything that the store knows of an event.
    Inspect(inspect::Options),
    /// List the events that could not be delivered.
    DeadLetters(dead_letters::Options),
    /// Deliver dead letters again.
    #[command(after_long_help = variables())]
    Replay(replay::Options),
    /// Delete dead letters.
    Discard(dead_letters::Discard),
    /// Show routing, duplicates and a race on this machine.
    Demo(demo::Options),
}

fn main() -> ExitCode {
    run().unwrap_or_else(|error| {
        let io = error.downcast_ref::<std::io::Error>();
        if io.is_some_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe) {
            // The reader of the output, such as `head`, has closed it. That is not an error.
            return ExitCode::SUCCESS;
        }
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}

fn run() -> anyhow::Result<ExitCode> {
    if cmd::started_by_lambda() {
        telemetry::init(Level::INFO, true)?;
        // An instance has one event at a time, and usually one core or less.
        return block_on(tokio::runtime::Builder::new_current_thread(), ended(cmd::lambda::run()));
    }
    let command = Cli::parse().command;
    let is_server = matches!(command, Command::Serve { .. });
    telemetry::init(if is_server { Level::INFO } else { Level::ERROR }, false)?;
    let threads = tokio::runtime::Builder::new_multi_thread();
    match command {
        Command::Serve { listen } => block_on(threads, ended(serve::run(listen))),
        Command::Explain(options) => block_on(threads, explain::run(options)),
        Command::Inspect(options) => block_on(threads, inspect::run(options)),
        Command::DeadLetters(options) => block_on(threads, dead_letters::run(options)),
        Command::Replay(options) => block_on(threads, replay::run(options)),
        Command::Discard(options) => block_on(threads, dead_letters::discard(options)),
        Command::Demo(options) => block_on(threads, ended(demo::run(options))),
    }
}

fn block_on(
    mut runtime: tokio::runtime::Builder,
    command: impl Future<Output = anyhow::Result<ExitCode>>,
) -> anyhow::Result<ExitCode> {
    runtime.enable_all().build()?.block_on(command)
}

/// Runs a command that succeeds if it ends without an error.
async fn ended(command: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<ExitCode> {
    command.await.map(|()| ExitCode::SUCCESS)
}

/// Returns the variables as a part of the help.
fn variables() -> String {
    let mut text = String::from("Variables:\n");
    for variable in VARIABLES {
        text += &format!("  {}", variable.name);
        if !variable.default.is_empty() {
            text += &format!(" [default: {}]", variable.default);
        }
        text += &format!("\n          {}\n", variable.meaning);
    }
    text + "\nThe Lambda destination, DynamoDB and SECRETS_ARN also take the standard AWS variables:\n\
            AWS_REGION (but a function's ARN has its own), credentials, AWS_ENDPOINT_URL_LAMBDA,\n\
            AWS_ENDPOINT_URL_DYNAMODB and AWS_ENDPOINT_URL_SECRETS_MANAGER.\n"
}
