//! A second reader of JSON, by the grammar of RFC 8259. It is written for clarity, shares no code with
//! the router's reader, and keeps every value. `canonical` prints a value as Python does.

use std::collections::BTreeMap;

/// Deepest nesting and longest integer that the router accepts.
const MAX_DEPTH: usize = 975;
const MAX_INTEGER_DIGITS: usize = 4300;

/// A string is a sequence of code points, of which some may be lone surrogates.
type Text = Vec<u32>;

pub enum Value {
    Word(&'static str),
    /// The digits, with their sign.
    Integer(String),
    Float(f64),
    String(Text),
    Array(Vec<Value>),
    Object(BTreeMap<Text, Value>),
}

/// Reads a text. Returns `None` if it is not JSON, or exceeds a limit.
pub fn read(text: &[u8]) -> Option<Value> {
    let chars: Vec<char> = std::str::from_utf8(text).ok()?.chars().collect();
    let (value, rest) = value(spaced(&chars), 1)?;
    spaced(rest).is_empty().then_some(value)
}

type Read<'a, T> = Option<(T, &'a [char])>;

fn spaced(text: &[char]) -> &[char] {
    let space = |char: &char| [' ', '\t', '\n', '\r'].contains(char);
    &text[text.iter().take_while(|char| space(char)).count()..]
}

fn value(text: &[char], depth: usize) -> Read<'_, Value> {
    match text {
        ['{' | '[', ..] if depth > MAX_DEPTH => None,
        ['{', rest @ ..] => object(rest, depth),
        ['[', rest @ ..] => array(rest, depth),
        ['"', rest @ ..] => string(rest).map(|(text, rest)| (Value::String(text), rest)),
        ['t', 'r', 'u', 'e', rest @ ..] => Some((Value::Word("true"), rest)),
        ['f', 'a', 'l', 's', 'e', rest @ ..] => Some((Value::Word("false"), rest)),
        ['n', 'u', 'l', 'l', rest @ ..] => Some((Value::Word("null"), rest)),
        _ => number(text),
    }
}

fn object(text: &[char], depth: usize) -> Read<'_, Value> {
    let mut members = BTreeMap::new();
    if let ['}', rest @ ..] = spaced(text) {
        return Some((Value::Object(members), rest));
    }
    let mut text = text;
    loop {
        let ['"', rest @ ..] = spaced(text) else { return None };
        let (name, rest) = string(rest)?;
        let [':', rest @ ..] = spaced(rest) else { return None };
        let (member, rest) = value(spaced(rest), depth + 1)?;
        members.insert(name, member);
        match spaced(rest) {
            [',', rest @ ..] => text = rest,
            ['}', rest @ ..] => return Some((Value::Object(members), rest)),
            _ => return None,
        }
    }
}

fn array(text: &[char], depth: usize) -> Read<'_, Value> {
    let mut elements = Vec::new();
    if let [']', rest @ ..] = spaced(text) {
        return Some((Value::Array(elements), rest));
    }
    let mut text = text;
    loop {
        let (element, rest) = value(spaced(text), depth + 1)?;
        elements.push(element);
        match spaced(rest) {
            [',', rest @ ..] => text = rest,
            [']', rest @ ..] => return Some((Value::Array(elements), rest)),
            _ => return None,
        }
    }
}

/// Reads the rest of a string, behind its first quote.
fn string(mut text: &[char]) -> Read<'_, Text> {
    let mut units = Vec::new();
    loop {
        let (unit, rest) = match text {
            ['"', rest @ ..] => return Some((paired(&units), rest)),
            ['\\', 'u', a, b, c, d, rest @ ..] => {
                let digits = [a, b, c, d].map(|digit| digit.to_digit(16));
                let digits = digits.into_iter().collect::<Option<Vec<_>>>()?;
                (digits.into_iter().fold(0, |unit, digit| unit * 16 + digit), rest)
            }
            ['\\', escaped, rest @ ..] => {
                let meaning = match escaped {
                    '"' | '\\' | '/' => *escaped,
                    'b' => '\u{8}',
                    'f' => '\u{c}',
                    'n' => '\n',
                    'r' => '\r',
                    't' => '\t',
                    _ => return None,
                };
                (meaning.into(), rest)
            }
            ['\0'..='\u{1f}', ..] | [] => return None,
            [char, rest @ ..] => ((*char).into(), rest),
        };
        units.push(unit);
        text = rest;
    }
}

/// Joins the halves of surrogate pairs. Only escapes can be halves.
fn paired(units: &[u32]) -> Text {
    let mut text: Text = Vec::new();
    for &unit in units {
        match text.last_mut() {
            Some(high @ 0xD800..=0xDBFF) if (0xDC00..=0xDFFF).contains(&unit) => {
                *high = 0x10000 + (*high - 0xD800) * 0x400 + (unit - 0xDC00);
            }
            _ => text.push(unit),
        }
    }
    text
}

fn number(text: &[char]) -> Read<'_, Value> {
    let digits = |from: usize| text[from..].iter().take_while(|char| char.is_ascii_digit()).count();
    let sign = usize::from(text.first() == Some(&'-'));
    let integer = match text.get(sign)? {
        '0' => 1,
        _ => digits(sign),
    };
    let integer_end = sign + integer;
    if integer == 0 {
        return None;
    }
    let mut end = integer_end;
    if text.get(end) == Some(&'.') && digits(end + 1) > 0 {
        end += 1 + digits(end + 1);
    }
    if matches!(text.get(end), Some('e' | 'E')) {
        let signed = usize::from(matches!(text.get(end + 1), Some('+' | '-')));
        let exponent = digits(end + 1 + signed);
        if exponent > 0 {
            end += 1 + signed + exponent;
        }
    }
    let written: String = text[..end].iter().collect();
    let value = if end > integer_end {
        Value::Float(written.parse().ok()?)
    } else if integer > MAX_INTEGER_DIGITS {
        return None;
    } else {
        Value::Integer(written)
    };
    Some((value, &text[end..]))
}

/// Returns the text that Python's `json.dumps` prints, with sorted keys and without spaces.
pub fn canonical(value: &Value) -> String {
    match value {
        Value::Word(word) => (*word).into(),
        Value::Integer(digits) if digits == "-0" => "0".into(),
        Value::Integer(digits) => digits.clone(),
        Value::Float(number) => repr(*number),
        Value::String(text) => quoted(text),
        Value::Array(elements) => {
            let elements: Vec<_> = elements.iter().map(canonical).collect();
            format!("[{}]", elements.join(","))
        }
        Value::Object(members) => {
            let member =
                |(name, value): (&Text, &Value)| format!("{}:{}", quoted(name), canonical(value));
            let members: Vec<_> = members.iter().map(member).collect();
            format!("{{{}}}", members.join(","))
        }
    }
}

fn quoted(text: &[u32]) -> String {
    let escape = |unit: u32| format!("\\u{unit:04x}");
    let char = |&code: &u32| match code {
        0x22 => "\\\"".into(),
        0x5C => "\\\\".into(),
        0x08 => "\\b".into(),
        0x09 => "\\t".into(),
        0x0A => "\\n".into(),
        0x0C => "\\f".into(),
        0x0D => "\\r".into(),
        0x20..=0x7E => char::from_u32(code).unwrap().to_string(),
        0x10000.. => {
            let rest = code - 0x10000;
            escape(0xD800 + rest / 0x400) + &escape(0xDC00 + rest % 0x400)
        }
        _ => escape(code),
    };
    format!("\"{}\"", text.iter().map(char).collect::<String>())
}

/// Prints a double as Python's `repr` does: with the fewest digits that are read as the same double. If
/// two such texts are equally near, the standard library prints the larger one, and Python the even one.
fn repr(number: f64) -> String {
    if number.is_infinite() {
        return if number > 0.0 { "Infinity".into() } else { "-Infinity".into() };
    }
    let shortest = format!("{number:e}");
    let digits = shortest.split('e').next().unwrap().bytes().filter(u8::is_ascii_digit).count();
    let nearest = format!("{number:.*e}", digits - 1);
    let same = nearest.parse() == Ok(number);
    let scientific = if same { nearest } else { shortest };
    let (mantissa, exponent) = scientific.split_once('e').unwrap();
    let exponent: i32 = exponent.parse().unwrap();
    if !(-4..16).contains(&exponent) {
        let sign = if exponent < 0 { '-' } else { '+' };
        return format!("{mantissa}e{sign}{:02}", exponent.abs());
    }
    let (sign, mantissa) = mantissa.strip_prefix('-').map_or(("", mantissa), |rest| ("-", rest));
    let digits = mantissa.replace('.', "");
    match usize::try_from(exponent) {
        Err(_) => {
            let zeros = "0".repeat(exponent.unsigned_abs() as usize - 1);
            format!("{sign}0.{zeros}{digits}")
        }
        Ok(point) if digits.len() > point + 1 => {
            let (integer, fraction) = digits.split_at(point + 1);
            format!("{sign}{integer}.{fraction}")
        }
        Ok(point) => format!("{sign}{digits:0<width$}.0", width = point + 1),
    }
}
