//! The tests that need more than one function: real processes, real HTTP, real files.

mod attempts;
mod cli;
mod config;
mod contract;
mod crash;
mod destination;
mod dynamodb;
mod hostile;
mod lambda;
mod model;
mod operators;
mod parity;
mod proxy;
mod race;
mod redis;
mod request;
mod rie;
mod rough;
mod secrets;
mod serve;
mod servers;
mod stack;
mod store;
mod support;
mod telemetry;
mod template;
