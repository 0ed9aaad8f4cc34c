//! Writes a delivery as a curl command for a POSIX shell.

use std::path::Path;

use base64::{Engine as _, prelude::BASE64_STANDARD};
use url::Url;

use crate::delivery::Delivery;

/// Returns a command that posts a delivery. The body comes from the file, or is part of the
/// command. In both cases, curl sends exactly its bytes.
pub(super) fn line(url: &Url, delivery: &Delivery, file: Option<&Path>) -> String {
    let mut words = vec!["curl".to_owned(), "-i".into()];
    // Without this option, curl treats brackets as patterns.
    if url.as_str().contains(['[', ']', '{', '}']) {
        words.push("--globoff".into());
    }
    words.push(quoted(url.as_str()));
    for (name, value) in &delivery.headers {
        words.push("-H".into());
        // curl reads `name:` without a value as an order to omit the header.
        words.push(match value.as_bytes() {
            b"" => quoted(&format!("{name};")),
            value => quoted(&format!("{name}: {}", String::from_utf8_lossy(value))),
        });
    }
    words.push("--data-binary".into());
    if let Some(file) = file.and_then(Path::to_str) {
        words.push(quoted(&format!("@{file}")));
        return words.join(" ");
    }
    words.push("@-".into());
    let body = match std::str::from_utf8(&delivery.body) {
        Ok(text) if !text.contains('\0') => format!("printf %s {}", quoted(text)),
        _ => format!("printf %s {} | base64 -d", BASE64_STANDARD.encode(&delivery.body)),
    };
    format!("{body} | {}", words.join(" "))
}

/// Quotes a text as one word of a POSIX shell.
fn quoted(text: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./:@%+,=".contains(&byte);
    if !text.is_empty() && text.bytes().all(is_plain) {
        return text.to_owned();
    }
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::quoted;

    #[test]
    fn a_shell_reads_back_what_was_quoted() {
        for text in ["", "plain", "it's", "a b\n$HOME `x` \"y\" \\ ! * ~", "''", "ü€", "-n", "%s"]
        {
            let script = format!("printf %s {}", quoted(text));
            let output = Command::new("sh").args(["-c", &script]).output().unwrap();
            assert_eq!(String::from_utf8(output.stdout).unwrap(), text, "{script}");
        }
    }
}
