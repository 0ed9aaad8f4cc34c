//! Tests that need more than one function: real processes, real HTTP, real files. Unit tests stand
//! beside the code.

mod fixture;

use fixture::{proxy, rough_destination, servers, shared, signed_deliveries, support};

// Key and route.
mod golden; // The golden cases of the Python router, byte for byte.
mod hostile; // Bodies made to hurt.
mod parity; // Generated cases against the Python reference.

// Sources.
mod every_vendor; // What holds for every vendor: one key for all retries, nothing changed passes.
mod fetcher; // Fetching the certificates and keys that vendors sign with.
mod handshakes; // Vendors' questions, and their answers.
mod sources_config; // Problems of SOURCES are named.
mod sources_over_http; // From a vendor's request to the destination.
mod vectors; // Signatures and ids, by vectors.
mod vendors; // Signed deliveries of every vendor, intact and changed.

// The life of a delivery.
mod answers; // The contract's table of answers.
mod attempts; // What destinations may do, and what comes of it.
mod destination; // What each destination gets, and what becomes of its answers.
mod idle_connections; // Connections to destinations and DynamoDB that die idle.
mod invoke; // What the processor Lambda is handed.
mod record; // How long an event is remembered, and with which route.

// Stores.
mod clocks; // Routers whose clocks are wrong, and one Redis.
mod dynamodb; // What is particular to DynamoDB.
mod hung_connections; // Connections to a store that hang.
mod redis; // What is particular to Redis.
mod store; // The contract of all stores.

// What may go wrong.
mod crash; // A crash at every step.
mod model; // All at once, at random.
mod race; // Several processes and one key.
mod suspended; // A machine that sleeps through its lease.
mod unsettled; // Stores that break while an event is with its destination.

// Servers and commands.
mod answers_and_discards; // What operators see of answers, and how they discard all letters.
mod bounds; // What `serve` bounds, whoever comes.
mod cli; // The commands as a person uses them.
mod config; // Problems of variables are named.
mod doctor; // What `doctor` and `/readyz` find.
mod event_command; // Events that the router signs as vendors do.
mod event_fronts; // The event of each front of the function.
mod operators; // Dead letters: list, look, replay, discard.
mod secrets; // Secrets Manager, and the rotation of the routing secret.
mod serve; // Several processes, crashes, shutdowns.
mod sources_command; // What `sources` lists.
mod telemetry; // Log lines and metrics.

// Lambda and AWS.
mod deploy; // The deployments of the Makefile.
mod lambda; // The function in cargo-lambda's emulator.
mod rie; // The release build in AWS's Runtime Interface Emulator.
mod stack; // What CloudFormation makes of template.yaml.
mod template; // template.yaml against the program.
