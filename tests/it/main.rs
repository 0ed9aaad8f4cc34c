//! Tests that need more than one function: real processes, real HTTP, real files. Unit tests are
//! beside the code.

mod fixture;

use fixture::{
    boundary, emulator, event_source, managed_instance, meter, proxy, rough_destination,
    runtime_api, servers, shared, signed_deliveries, support,
};

// Key and route.
mod fuzz; // The checks of the fuzz targets, run on their seeds.
mod golden; // The golden cases of the Python router, byte for byte.
mod hostile; // Hostile bodies.
mod parity; // Generated cases against the Python reference.

// Sources.
mod every_vendor; // Rules for every vendor: one key for all retries, no changed request passes.
mod fetcher; // Fetches the certificates and keys that vendors sign with.
mod handshakes; // Vendors' questions, and their answers.
mod libraries; // Vendors' own libraries: they accept the router's signatures, and the router theirs.
mod particular_vendors; // Checks that a single vendor needs.
mod sources_config; // Problems of SOURCES, each named.
mod sources_over_http; // Vendors' requests, from HTTP to the destination.
mod vectors; // Signatures and ids, from test vectors.
mod vendor_documentation; // The documentation of every vendor.
mod vendors; // Signed deliveries of every vendor, intact and changed.

// The life of a delivery.
mod answers; // The answers in the table of docs/answers.md.
mod attempts; // Behaviours of destinations, and their consequences.
mod destination; // Requests to each destination, and the results of its answers.
mod id_tokens; // A private Cloud Run service, and the ID tokens that it asks for.
mod idle_connections; // Idle connections to destinations and DynamoDB that break.
mod inbox; // Accepted events: answered at once, delivered after the answer.
mod invoke; // Requests to the processor Lambda, and the results of its answers.
mod limits; // Limits on what a destination gets at once and per second.
mod mirror; // Copies of events, and mirrors that fail.
mod moving; // Tables of destinations: shares, shifts, destinations that are gone.
mod network; // Client certificates, TLS versions, and names that lead to this machine.
mod record; // The record of an event: its lifetime and its route.
mod signing; // Signatures of what the router forwards.

// Stores.
mod clocks; // Routers with wrong clocks, and one Redis.
mod dynamodb; // Behaviour that only DynamoDB has.
mod hot_key; // One event, delivered ten thousand times at once.
mod hung_connections; // Connections to a store that hang.
mod redis; // Behaviour that only Redis has.
mod redis_letters; // The list of dead letters in Redis.
mod store; // The contract of all stores.

// Faults.
mod crash; // A crash at every step.
mod model; // All faults together, at random.
mod race; // Several processes compete for one key.
mod suspended; // A machine that is suspended for longer than its lease.
mod unsettled; // Stores that break while an event is at its destination.

// Servers and commands.
mod answers_and_discards; // Answers as operators see them, and the discarding of many letters.
mod bounds; // Limits of `serve` against every peer.
mod cli; // Commands as a person uses them.
mod config; // Problems of variables, each with its remedy.
mod demo; // The demo, and the commands that it prints.
mod doctor; // Findings of `doctor`.
mod event_command; // `event`: events signed as vendors sign them.
mod event_fronts; // `event`: the event that each front creates.
mod explain; // `explain`: what the router derives from a body.
mod operators; // Dead letters: list, inspect, replay, discard.
mod secrets; // Secrets Manager, and the rotation of the routing secret.
mod serve; // Several processes, crashes, shutdowns.
mod sources_command; // The list that `sources` prints.
mod telemetry; // Log lines and metrics.

// Lambda and AWS.
mod deploy; // Deployments with the Makefile.
mod lambda; // The function in cargo-lambda's emulator.
mod managed_instances; // Several invocations at a time in one instance.
mod queue; // Accepted events in Lambda: messages of SQS, and the schedule.
mod rie; // The release build in AWS's Runtime Interface Emulator.
mod scale; // The simulator beside real runs.
mod stack; // The stack that CloudFormation creates from template.yaml.
mod template; // Compares template.yaml with the program.
