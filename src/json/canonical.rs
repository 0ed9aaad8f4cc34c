//! Prints a document exactly as Python does, into a hasher or any other writer.

use std::io::{self, Write};

use sha2::{Digest as _, Sha256};

use super::{
    Document, Kind, Node, Pointer,
    output::Output,
    text::{escaped, plain_run},
};

impl Document<'_> {
    /// Returns the SHA-256 of the canonical form.
    pub fn digest(&self) -> [u8; 32] {
        self.digest_without(&[])
    }

    /// Returns the SHA-256 of the canonical form without these members and elements.
    pub fn digest_without(&self, left_out: &[Pointer]) -> [u8; 32] {
        let found = left_out.iter().filter_map(|pointer| pointer.find(self.root()));
        let left_out: Vec<_> = found.map(|value| value.index).collect();
        let mut out = Output::new(Hasher(Sha256::new()), self.text.len());
        self.write_value(0, &left_out, &mut out);
        #[expect(clippy::expect_used, reason = "a hasher takes everything")]
        let Hasher(hash) = out.finish().expect("a hasher takes everything");
        hash.finalize().into()
    }

    /// Writes the canonical form.
    pub fn write_canonical(&self, out: &mut impl Write) -> io::Result<()> {
        let mut out = Output::new(out, self.text.len());
        self.write_value(0, &[], &mut out);
        out.finish().map(|_| ())
    }

    /// Writes a value without the values whose indices are in `left_out`.
    fn write_value(&self, index: u32, left_out: &[u32], out: &mut Output<impl Write>) {
        let node = self.nodes[index as usize];
        match node.kind {
            Kind::Array | Kind::Object if node.is_canonical && left_out.is_empty() => {
                self.write_as_it_is(node, out);
            }
            Kind::Array => {
                let (mut child, mut before) = (index + 1, b'[');
                let end = self.containers[node.inner as usize].end;
                while child < end {
                    if !left_out.contains(&child) {
                        out.put(&[before]);
                        before = b',';
                        self.write_value(child, left_out, out);
                    }
                    child = self.after(child);
                }
                if before == b'[' { out.put(b"[]") } else { out.put(b"]") }
            }
            Kind::Object => {
                let mut before = b'{';
                for &key in self.members_of(node) {
                    if !left_out.contains(&(key + 1)) {
                        out.put(&[before]);
                        before = b',';
                        if self.write_name(key, left_out, out) {
                            self.write_value(key + 1, left_out, out);
                        }
                    }
                }
                if before == b'{' { out.put(b"{}") } else { out.put(b"}") }
            }
            _ => self.write_scalar(node, out),
        }
    }

    /// Writes the name of a member, with its value if both are canonical. Returns whether the value
    /// must still be written.
    #[cfg_attr(not(debug_assertions), inline(always))]
    fn write_name(&self, key: u32, left_out: &[u32], out: &mut Output<impl Write>) -> bool {
        let name = self.nodes[key as usize];
        if name.inner > 0 && left_out.is_empty() {
            out.put_part(self.text.as_bytes(), name.start as usize, name.inner as usize);
            return false;
        }
        self.write_scalar(name, out);
        out.put(b":");
        true
    }

    /// Writes a scalar or a key.
    fn write_scalar(&self, node: Node, out: &mut Output<impl Write>) {
        match node.kind {
            _ if node.is_canonical => self.write_as_it_is(node, out),
            Kind::Float => write_float(self.raw(node), out),
            Kind::String | Kind::Escaped => {
                write_string(self.text, node.start as usize, node.end as usize, out);
            }
            // The only word that is not canonical is -0. Arrays and objects are no scalars.
            Kind::Word | Kind::Array | Kind::Object => out.put(b"0"),
        }
    }

    #[cfg_attr(not(debug_assertions), inline(always))]
    fn write_as_it_is(&self, node: Node, out: &mut Output<impl Write>) {
        out.put_part(self.text.as_bytes(), node.start as usize, node.end as usize);
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
/// `\uXXXX`. The string is `text[start..end]`, with its quotes.
fn write_string(text: &str, start: usize, end: usize, out: &mut Output<impl Write>) {
    let (bytes, mut at) = (text.as_bytes(), start + 1);
    out.put(b"\"");
    loop {
        let run = at;
        at += plain_run(bytes, at);
        out.put_part(bytes, run, at);
        if at + 1 == end {
            break;
        }
        if bytes[at] == b'\\' {
            let (code, length) = escaped(&bytes[at..]);
            write_code_point(code, out);
            at += length;
        } else {
            for char in text[at..].chars().take_while(|char| *char > '~') {
                write_code_point(char.into(), out);
                at += char.len_utf8();
            }
        }
    }
    out.put(b"\"");
}

fn write_code_point(code: u32, out: &mut Output<impl Write>) {
    match code {
        0x22 => out.put(b"\\\""),
        0x5C => out.put(b"\\\\"),
        0x08 => out.put(b"\\b"),
        0x0C => out.put(b"\\f"),
        0x0A => out.put(b"\\n"),
        0x0D => out.put(b"\\r"),
        0x09 => out.put(b"\\t"),
        0x20..=0x7E => out.put(&[code as u8]),
        0..=0xFFFF => write_unit(code, out),
        _ => {
            let offset = code - 0x10000;
            write_unit(0xD800 + (offset >> 10), out);
            write_unit(0xDC00 + (offset & 0x3FF), out);
        }
    }
}

fn write_unit(unit: u32, out: &mut Output<impl Write>) {
    let digit = |shift: u32| b"0123456789abcdef"[(unit >> shift & 0xF) as usize];
    out.put(&[b'\\', b'u', digit(12), digit(8), digit(4), digit(0)]);
}

/// Prints a number with a point or an exponent as Python's `repr` of the nearest double.
fn write_float(raw: &str, out: &mut Output<impl Write>) {
    let value = nearest_double(raw);
    // In this range, neither Python nor zmij prints an exponent.
    if (1e-4..1e16).contains(&value.abs()) {
        out.put_long(zmij::Buffer::new().format_finite(value).as_bytes());
    } else {
        out.put_long(repr(value).as_bytes());
    }
}

fn repr(value: f64) -> String {
    let minus = if value.is_sign_negative() { "-" } else { "" };
    if value.is_infinite() {
        return format!("{minus}Infinity");
    }
    let (digits, exponent) = shortest_digits(value.abs());
    match exponent {
        -4..=-1 => format!("{minus}0.{:0>1$}", digits, digits.len() + (-exponent - 1) as usize),
        0..=15 => {
            let point = exponent as usize + 1;
            if digits.len() <= point {
                format!("{minus}{digits:0<point$}.0")
            } else {
                format!("{minus}{}.{}", &digits[..point], &digits[point..])
            }
        }
        _ => {
            let (first, rest) = digits.split_at(1);
            let point = if rest.is_empty() { "" } else { "." };
            let sign = if exponent < 0 { '-' } else { '+' };
            format!("{minus}{first}{point}{rest}e{sign}{:02}", exponent.unsigned_abs())
        }
    }
}

/// Returns the shortest digits that round-trip and are nearest to the value, without leading and
/// trailing zeros, and the power of ten of the first digit.
fn shortest_digits(value: f64) -> (String, i32) {
    // When two shortest forms are equally near, the standard library rounds up. Python and zmij
    // round to even.
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
pub(super) fn nearest_double(raw: &str) -> f64 {
    // Rust's own parser is exact, but it saturates exponents of more than five digits. That is
    // wrong if zeros in the number balance the exponent, as in 0.000...1e100001. Shorter texts
    // cannot hold that many zeros.
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
