//! The tests that need more than one function: real processes, real HTTP, real files.

mod cli;
mod config;
mod contract;
mod destination;
mod dynamodb;
mod hostile;
mod lambda;
mod parity;
mod proxy;
mod race;
mod redis;
mod request;
mod serve;
mod servers;
mod store;
mod support;
