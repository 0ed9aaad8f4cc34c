//! The tests that need more than one function: real processes, real HTTP, real files.

mod cli;
mod config;
mod contract;
mod destination;
mod hostile;
mod lambda;
mod parity;
mod request;
mod serve;
mod store;
mod support;
