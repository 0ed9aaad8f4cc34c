#![forbid(unsafe_code)]
#![doc = include_str!("../docs/architecture.md")]

pub mod cmd;
pub mod config;
pub mod delivery;
pub mod destination;
pub mod error;
pub mod json;
pub mod key;
pub mod lowercase;
pub mod plan;
pub mod router;
pub mod secret;
pub mod store;
pub mod telemetry;
pub mod timestamp;
pub mod vendor;
