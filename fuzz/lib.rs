//! Parts that the fuzz targets share.

pub mod deliveries;
pub mod reader;
