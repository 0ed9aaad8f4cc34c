//! Runs a command, prints its error, and exits.

#![forbid(unsafe_code)]

use std::{io::Write as _, net::SocketAddr, process::ExitCode, time::Duration};

use clap::{CommandFactory as _, Parser, Subcommand};
use clap_complete::Shell;
use tracing::Level;
use webhook_router::{
    cmd::{
        self, address, dead_letters, demo, doctor, drain, event, explain, inspect, pending,
        plan_shift, replay, serve, sources, variables,
    },
    store, telemetry,
};

/// A delivery allocates more than a hundred times, and its memory is often freed by another thread.
/// The binary `webhook-function` usually has one thread and must be small, so it uses the C
/// library's allocator.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The end of the help text of commands that the variables configure.
const VARIABLES: &str = "`webhook-router variables` lists the variables that configure it.";

/// Time for work on other threads that is still under way when a command has ended.
const LAST_WORK: Duration = Duration::from_secs(1);

/// Receives vendors' webhooks, and delivers each event without its duplicates, always to the same destination.
///
/// In Lambda, it runs as the function behind a Function URL, an API Gateway or a load balancer.
/// Elsewhere, it takes a command.
#[derive(Parser)]
#[command(version, after_help = VARIABLES, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the router as an HTTP server.
    #[command(after_help = VARIABLES)]
    Serve {
        /// Address to listen on, or a port on loopback [default: 127.0.0.1:8080, or 0.0.0.0:$PORT
        /// if PORT is set].
        #[arg(long, value_name = "ADDR", value_parser = address::parse_listen)]
        listen: Option<SocketAddr>,
    },
    /// Check the configuration and the services that it names: store, targets, AWS, certificates,
    /// ports.
    #[command(after_help = VARIABLES)]
    Doctor(doctor::Options),
    /// Print the key, the route and everything else that the router derives from a body. Needs no
    /// store.
    Explain(explain::Options),
    /// Count the events that another table of destinations would move. Needs no store.
    PlanShift(plan_shift::Options),
    /// Sign an event as its vendor does, and print or send it.
    Event(Box<event::Options>),
    /// List the sources that are served, and those that are not, with the reason.
    Sources(sources::Options),
    /// Print everything that the store knows of an event.
    Inspect(inspect::Options),
    /// List the events that could not be delivered.
    DeadLetters(dead_letters::Options),
    /// List the accepted events that are not delivered yet.
    Pending(pending::Options),
    /// Deliver the accepted events that are due, and exit.
    #[command(after_help = VARIABLES)]
    Drain(drain::Options),
    /// Deliver dead letters again, and accepted events before their time.
    #[command(after_help = VARIABLES)]
    Replay(replay::Options),
    /// Delete dead letters and accepted events.
    Discard(dead_letters::Discard),
    /// Run the router on this machine, and show signatures, routing, duplicates and simultaneous
    /// deliveries.
    Demo(demo::Options),
    /// List the variables, their defaults and their meanings.
    Variables(variables::Options),
    /// Print a shell's completion script. README.md says where to put it.
    Completions { shell: Shell },
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
        return cmd::lambda::start(store::open).map(|()| ExitCode::SUCCESS);
    }
    let command = Cli::parse().command;
    let is_server = matches!(command, Command::Serve { .. });
    telemetry::init(if is_server { Level::INFO } else { Level::ERROR }, false)?;
    match command {
        Command::Serve { listen } => block_on(ended(serve::run(listen))),
        Command::Explain(options) => block_on(explain::run(options)),
        Command::PlanShift(options) => block_on(plan_shift::run(options)),
        Command::Event(options) => block_on(event::run(*options)),
        Command::Sources(options) => block_on(sources::run(options)),
        Command::Inspect(options) => block_on(inspect::run(options)),
        Command::DeadLetters(options) => block_on(dead_letters::run(options)),
        Command::Pending(options) => block_on(pending::run(options)),
        Command::Drain(options) => block_on(drain::run(options)),
        Command::Replay(options) => block_on(replay::run(options)),
        Command::Discard(options) => block_on(dead_letters::discard(options)),
        Command::Demo(options) => block_on(ended(demo::run(options))),
        Command::Doctor(options) => block_on(doctor::run(options)),
        Command::Variables(options) => variables::run(&options),
        Command::Completions { shell } => completions(shell),
    }
}

fn block_on(command: impl Future<Output = anyhow::Result<ExitCode>>) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Runtime::new()?;
    let ended = runtime.block_on(command);
    // The system's look-up of a name cannot be cancelled, and may take too long to wait for.
    runtime.shutdown_timeout(LAST_WORK);
    ended
}

/// Runs a command that succeeds if it ends without an error.
async fn ended(command: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<ExitCode> {
    command.await.map(|()| ExitCode::SUCCESS)
}

/// Prints a shell's completion script for this command.
fn completions(shell: Shell) -> anyhow::Result<ExitCode> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), env!("CARGO_PKG_NAME"), &mut script);
    std::io::stdout().write_all(&script)?;
    Ok(ExitCode::SUCCESS)
}
