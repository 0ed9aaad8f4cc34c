//! Prints a document exactly as Python does, into a hasher or any other writer.

use std::io::{self, BufWriter, Write};

use sha2::{Digest as _, Sha256};

use super::{Document, Kind, Pointer, text::first_code_point};

impl Document<'_> {
    /// Returns the SHA-256 of the canonical form.
    pub fn digest(&self) -> [u8; 32] {
        self.digest_without(&[])
    }

    /// Returns the SHA-256 of the canonical form without these members and elements.
    pub fn digest_without(&self, left_out: &[Pointer]) -> [u8; 32] {
        let found = left_out.iter().filter_map(|pointer| pointer.find(self.root()));
        let left_out: Vec<_> = found.map(|value| value.index).collect();
        let mut out = BufWriter::new(Hasher(Sha256::new()));
        let written = self.write_node(0, &left_out, &mut out).and_then(|()| out.flush());
        debug_assert!(written.is_ok(), "a hasher takes everything");
        out.get_ref().0.clone().finalize().into()
    }

    /// Writes the canonical form.
    pub fn write_canonical(&self, out: &mut impl Write) -> io::Result<()> {
        self.write_node(0, &[], out)
    }

    /// Writes a node without the values whose indices are in `left_out`.
    fn write_node(&self, index: u32, left_out: &[u32], out: &mut impl Write) -> io::Result<()> {
        let node = self.nodes[index as usize];
        match node.kind {
            // Python reads -0 as an integer, and integers have no sign on zero.
            Kind::Verbatim if self.raw(index) == "-0" => out.write_all(b"0"),
            Kind::Verbatim => out.write_all(self.raw(index).as_bytes()),
            Kind::Float => write_float(self.raw(index), out),
            Kind::String => write_string(self.raw(index), out),
            Kind::Array => {
                out.write_all(b"[")?;
                let (mut child, mut before) = (index + 1, "");
                while child < node.end {
                    if !left_out.contains(&child) {
                        out.write_all(before.as_bytes())?;
                        before = ",";
                        self.write_node(child, left_out, out)?;
                    }
                    child = self.after(child);
                }
                out.write_all(b"]")
            }
            Kind::Object => {
                let mut before = "{";
                for &key in self.members_of(node) {
                    if !left_out.contains(&(key + 1)) {
                        self.write_key(before, key, out)?;
                        before = ",";
                        self.write_node(key + 1, left_out, out)?;
                    }
                }
                out.write_all(if before == "{" { b"{}" } else { b"}" })
            }
        }
    }

    fn write_key(&self, before: &str, key: u32, out: &mut impl Write) -> io::Result<()> {
        out.write_all(before.as_bytes())?;
        write_string(self.raw(key), out)?;
        out.write_all(b":")
    }
}

struct Hasher(Sha256);

impl Write for Hasher {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Prints a string as Python does with `ensure_ascii`: every character outside `' '..='~'` as
/// `\uXXXX`.
fn write_string(raw: &str, out: &mut impl Write) -> io::Result<()> {
    out.write_all(b"\"")?;
    let mut rest = raw;
    loop {
        let plain = rest.bytes().take_while(|byte| matches!(byte, b' '..=b'~') && *byte != b'\\');
        let (run, tail) = rest.split_at(plain.count());
        out.write_all(run.as_bytes())?;
        if tail.is_empty() {
            break;
        }
        let (code, length) = first_code_point(tail);
        write_code_point(code, out)?;
        rest = &tail[length..];
    }
    out.write_all(b"\"")
}

fn write_code_point(code: u32, out: &mut impl Write) -> io::Result<()> {
    match code {
        0x22 => out.write_all(b"\\\""),
        0x5C => out.write_all(b"\\\\"),
        0x08 => out.write_all(b"\\b"),
        0x0C => out.write_all(b"\\f"),
        0x0A => out.write_all(b"\\n"),
        0x0D => out.write_all(b"\\r"),
        0x09 => out.write_all(b"\\t"),
        0x20..=0x7E => out.write_all(&[code as u8]),
        0..=0xFFFF => write!(out, "\\u{code:04x}"),
        _ => {
            let offset = code - 0x10000;
            write!(out, "\\u{:04x}\\u{:04x}", 0xD800 + (offset >> 10), 0xDC00 + (offset & 0x3FF))
        }
    }
}

/// Prints a number with a point or an exponent as Python's `repr` of the nearest double.
fn write_float(raw: &str, out: &mut impl Write) -> io::Result<()> {
    let value = nearest_double(raw);
    if value.is_sign_negative() {
        out.write_all(b"-")?;
    }
    if value.is_infinite() {
        return out.write_all(b"Infinity");
    }
    let (digits, exponent) = shortest_digits(value.abs());
    match exponent {
        -4..=-1 => write!(out, "0.{:0>1$}", digits, digits.len() + (-exponent - 1) as usize),
        0..=15 => {
            let point = exponent as usize + 1;
            if digits.len() <= point {
                write!(out, "{digits:0<point$}.0")
            } else {
                write!(out, "{}.{}", &digits[..point], &digits[point..])
            }
        }
        _ => {
            let (first, rest) = digits.split_at(1);
            let point = if rest.is_empty() { "" } else { "." };
            let sign = if exponent < 0 { '-' } else { '+' };
            write!(out, "{first}{point}{rest}e{sign}{:02}", exponent.unsigned_abs())
        }
    }
}

/// Returns the shortest digits that round-trip and are nearest to the value, without leading and
/// trailing zeros, and the power of ten of the first digit.
fn shortest_digits(value: f64) -> (String, i32) {
    // When two shortest forms are equally near, the standard library rounds up. Python and this
    // crate round to even.
    let mut buffer = zmij::Buffer::new();
    let text = buffer.format_finite(value);
    let (mantissa, exponent) = text.split_once('e').unwrap_or((text, "0"));
    let (integer, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let all = [integer, fraction].concat();
    let digits = all.trim_start_matches('0');
    if digits.is_empty() {
        return ("0".into(), 0);
    }
    let zeros = all.len() - digits.len();
    let exponent = exponent.parse().unwrap_or(0) + integer.len() as i32 - 1 - zeros as i32;
    (digits.trim_end_matches('0').into(), exponent)
}

/// Returns the double nearest to a JSON number of any length.
fn nearest_double(raw: &str) -> f64 {
    // Rust's own parser is exact, but it saturates exponents of more than five digits. That is
    // wrong when as many zeros compensate for the exponent. Shorter texts cannot hold that many
    // zeros.
    const SHORT: usize = 10_000;
    // 767 digits decide any double. Of the digits after these, it only matters whether all are
    // zero.
    const ENOUGH_DIGITS: usize = 800;
    let parse = |text: &str| text.parse().unwrap_or(f64::INFINITY);
    if raw.len() < SHORT {
        return parse(raw);
    }
    let (mantissa, exponent) = raw.split_once(['e', 'E']).unwrap_or((raw, "0"));
    let (integer, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let (sign, integer) = integer.strip_prefix('-').map_or(("", integer), |rest| ("-", rest));
    let all = [integer, fraction].concat();
    let digits = all.trim_start_matches('0');
    // The value is 0.DIGITS times ten to the power of `point` plus the exponent.
    let point = integer.len() as i64 - (all.len() - digits.len()) as i64;
    let exponent = match exponent.parse::<i64>() {
        Ok(exponent) => exponent.clamp(-1 << 40, 1 << 40),
        Err(_) if exponent.starts_with('-') => -1 << 40,
        Err(_) => 1 << 40,
    };
    let magnitude = (point + exponent).clamp(-9_999, 9_999);
    let (kept, cut) = digits.split_at(digits.len().min(ENOUGH_DIGITS));
    let sticky = if cut.bytes().any(|digit| digit != b'0') { "1" } else { "" };
    parse(&format!("{sign}0.0{kept}{sticky}e{}", magnitude + 1))
}
