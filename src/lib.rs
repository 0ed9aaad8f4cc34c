#![forbid(unsafe_code)]
#![doc = include_str!("../docs/architecture.md")]

// The modules in reading order. Each module uses only the modules above it.

pub mod secret;

pub mod delivery;

pub mod json;

pub mod timestamp;

pub mod lowercase;

pub mod key;

pub mod outcome;

pub mod trace;

pub mod error;

pub mod event;

pub mod route;

pub mod source;

pub mod config;

pub mod plan;

mod http_client;

pub mod aws;

mod fault;

pub mod store;

pub mod destination;

pub mod fetcher;

pub mod telemetry;

pub mod router;

pub mod redelivery;

pub mod cmd;
