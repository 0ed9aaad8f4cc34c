//! The checks that the fuzz targets make of each input. `tests/it/fuzz.rs` makes them of the seeds.

mod deliveries;
pub mod destinations;
pub mod fronts;
pub mod json;
mod reader;
pub mod signatures;
pub mod sources;
pub mod timestamp;
