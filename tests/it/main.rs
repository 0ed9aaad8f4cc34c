mod golden;
mod parity;
