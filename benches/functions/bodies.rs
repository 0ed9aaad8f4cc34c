//! Bodies to measure with: the shapes that vendors send, and the ones that an attacker would.

use std::fmt::Write as _;

/// A body with a name for the table.
pub struct Body {
    pub name: &'static str,
    pub text: String,
}

/// Returns the bodies that a vendor could send: JSON without white space, with keys in no order,
/// escapes, text outside ASCII, integers and floats. Each is of about this size.
pub fn order(size: usize) -> String {
    envelope(size, |text, number| item(text, number, ["", "", ""]))
}

/// Returns bodies of about this size that differ from [`order`] in one trait each.
pub fn shapes(size: usize) -> Vec<Body> {
    let body = |name, text| Body { name, text };
    vec![
        body(
            "pretty",
            envelope(size, |text, number| item(text, number, ["\n        ", " ", "\n"])),
        ),
        body("in order", envelope(size, in_order)),
        body("non-ASCII", envelope(size, japanese)),
        body("floats", envelope(size, floats)),
    ]
}

/// Returns bodies of about this size that are dear to read.
pub fn hostile(size: usize) -> Vec<Body> {
    let repeated = |text: &str| text.repeat(size / text.len());
    let list = |body: &mut dyn FnMut(usize) -> String, count: usize| {
        (0..count).map(body).collect::<Vec<_>>().join(",")
    };
    let body = |name, value: String| Body { name, text: with_head(&value) };
    vec![
        body("wide", {
            let member = &mut |at| format!("\"{:05}\":0", at * 7_919 % 99_991);
            format!("{{{}}}", list(member, size / 10))
        }),
        body("wide, long prefix", {
            let member = &mut |at| format!("\"a_common_prefix_{:05}\":0", at * 7_919 % 99_991);
            format!("{{{}}}", list(member, size / 26))
        }),
        body("escaped keys", {
            let member = &mut |at| format!("\"\\u006b{:05}\":0", at * 7_919 % 99_991);
            format!("{{{}}}", list(member, size / 16))
        }),
        body("equal keys", format!("{{{}\"a\":1}}", repeated("\"a\":1,"))),
        body("deep", {
            let (open, close) = ("{\"b\":".repeat(900), ",\"a\":1}".repeat(900));
            format!("{open}\"{}\"{close}", "x".repeat(size - open.len() - close.len()))
        }),
        body("escapes", format!("\"{}\"", repeated("\\ud800"))),
        body("quotes", format!("\"{}\"", repeated("\\\""))),
        body("control", format!("\"{}\"", repeated("é\\n"))),
        body("long floats", format!("[{}0]", repeated("1.7976931348623157e-308,"))),
        body("empty objects", format!("[{}0]", repeated("{},"))),
        body("white space", repeated(" ") + "0"),
    ]
}

fn with_head(value: &str) -> String {
    let head =
        r#""vendor":"acme","event_type":"order.paid","created_at":"2026-05-06T14:34:56+02:00""#;
    format!("{{{head},\"data\":{value}}}")
}

/// Writes items into an envelope until it has about the size.
fn envelope(size: usize, item: impl Fn(&mut String, usize)) -> String {
    let mut items = String::from("[");
    for number in 1.. {
        item(&mut items, number * 7_919 % 100_003);
        if items.len() + 100 > size {
            break;
        }
        items.push(',');
    }
    items.push(']');
    with_head(&items)
}

/// Writes an item of an order. `space` stands before a key, after a colon and before a brace.
fn item(text: &mut String, number: usize, space: [&str; 3]) {
    let [line, gap, end] = space;
    let mut member = |name: &str, value: String| {
        let _ =
            write!(text, "{}{line}\"{name}\":{gap}{value}", if name == "id" { "{" } else { "," });
    };
    member("id", format!("{}", 450_000_000 + number));
    member("sku", format!("\"IPOD-{number}-N\""));
    member("title", format!("\"Café für Zoë, Größe {}\"", number % 50));
    member("quantity", (number % 7).to_string());
    member("price", format!("{}.{:02}", number % 900, number % 89 + 10));
    member("currency", "\"EUR\"".into());
    member("taxable", (number.is_multiple_of(3)).to_string());
    member("discount", "null".into());
    member("product_url", format!("\"https:\\/\\/shop.example.com\\/products\\/{number}\""));
    member("note", format!("\"Please ring twice.\\nThe \\\"{number}\\\" is on the left.\""));
    member(
        "tax_lines",
        format!("[{{\"title\":{gap}\"VAT\",\"rate\":{gap}0.19,\"amount\":{gap}{number}.5}}]"),
    );
    member(
        "variant",
        format!(
            "{{\"name\":{gap}\"blue \\u2013 42\",\"barcode\":{gap}\"{number:013}\",\"grams\":{gap}{}}}",
            number % 4_000
        ),
    );
    member("fulfillment_status", "\"unfulfilled\"".into());
    member("updated_at", "\"2026-05-06T14:34:56.789+02:00\"".into());
    text.push_str(end);
    text.push('}');
}

fn in_order(text: &mut String, number: usize) {
    let _ = write!(
        text,
        "{{\"amount\":{number},\"currency\":\"EUR\",\"description\":\"Line {number} of the invoice\",\"id\":\"il_{number:024}\",\"livemode\":true,\"metadata\":{{}},\"period\":{{\"end\":1780000000,\"start\":1770000000}},\"subscription\":null}}"
    );
}

fn japanese(text: &mut String, number: usize) {
    let _ = write!(
        text,
        "{{\"id\":{number},\"body\":\"ご注文ありがとうございます。商品は明日発送いたします。\",\"author\":\"山田太郎\",\"rating\":{}}}",
        number % 6
    );
}

fn floats(text: &mut String, number: usize) {
    let fraction = number as f64 / 97.0;
    let _ = write!(
        text,
        "{{\"lon\":{fraction},\"lat\":{:.6},\"speed\":{}.25,\"heading\":{number}e-3}}",
        fraction / 7.0,
        number % 90
    );
}
