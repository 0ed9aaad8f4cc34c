#![forbid(unsafe_code)]
#![doc = include_str!("../docs/architecture.md")]

pub mod config;
pub mod delivery;
pub mod error;
pub mod json;
pub mod key;
pub mod lowercase;
pub mod plan;
pub mod secret;
pub mod timestamp;
pub mod vendor;
