#![forbid(unsafe_code)]
#![doc = include_str!("../docs/architecture.md")]

// The modules in reading order. Each module uses only the modules above it. To learn how the router
// works, start with `router` and `store`.

// A secret that is never printed.
pub mod secret;

// The result of a check of the configuration or of a service.
pub mod finding;

// The operator's own certificate authorities.
pub mod authorities;

// The operator's client certificate.
pub mod client_certificate;

// A request and a reply, independent of any server.
pub mod delivery;

// JSON, read and written exactly as the Python router does (the router that this one replaces, and
// may share a Redis with).
pub mod json;

// Tables of code points.
mod code_points;

// Times, read exactly as the Python router does.
pub mod timestamp;

// Hex digits.
mod hex_digits;

// Python's lower case.
pub mod lowercase;

// The key of an event, and the byte that selects its route.
pub mod key;

// The trigger, the outcomes and the ending of a delivery.
pub mod outcome;

// The trace context of a delivery.
pub mod trace;

// Every refusal and failure, each with its answer.
pub mod error;

// The event that a delivery reports.
pub mod event;

// The names of destinations, and their shares of the route bytes.
pub mod route;

// The fields of tables in TOML, with their lines.
mod table;

// The sources of events: vendors, and how they sign.
pub mod source;

// Signatures of forwarded events.
pub mod signing;

// The configuration: every variable, and the texts of SOURCES and DESTINATIONS.
pub mod config;

// Turns a delivery into a plan, without I/O.
pub mod plan;

// Name resolution for destinations.
mod resolver;

// HTTP connections to other services.
mod http_client;

// The shared settings of the AWS clients.
pub mod aws;

// Places where a test crashes the process.
mod fault;

// START HERE: the records of events, and the atomic claim on an event.
pub mod store;

// The destinations of events.
pub mod destination;

// Messages that wake the function.
pub mod queue;

// Checks of the services that the configuration names.
pub mod checkup;

// Vendors' certificates and keys, fetched and cached.
pub mod fetcher;

// The log line and the metrics of a delivery.
pub mod telemetry;

// Limits on what is sent to each destination.
pub mod limits;

// Copies of events for mirrors.
pub mod mirror;

// START HERE: the life of a delivery.
pub mod router;

// Accepted events, delivered after the answer.
pub mod inbox;

// Dead letters, listed and delivered again.
pub mod redelivery;

// The commands, the servers and the Lambda function.
pub mod cmd;

#[cfg(test)]
mod testing;
