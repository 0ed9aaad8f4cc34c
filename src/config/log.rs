//! The log filter.

use tracing::level_filters::LevelFilter;
use tracing_subscriber::EnvFilter;

use super::vars::Vars;

/// The variable that sets the log filter. It is read from the environment only, before all others.
pub const LOG: &str = "RUST_LOG";

/// Reads the log filter: a list of levels. A name and `=` before a level limit it to one module.
///
/// In the filter's syntax, a name without a level logs every line of that module, and no other line.
/// A mistyped level would count as such a name, so each entry must have a level.
///
/// # Errors
/// Fails if the filter is malformed. The error describes a valid filter.
pub fn log_filter(text: &str) -> Result<EnvFilter, &'static str> {
    let has_level = |entry: &str| {
        let level = entry.rsplit('=').next().unwrap_or_default().trim();
        // The filter would read an empty entry as `error`.
        !level.is_empty() && level.parse::<LevelFilter>().is_ok()
    };
    EnvFilter::try_new(text).ok().filter(|_| text.split(',').all(has_level)).ok_or(
        "must be error, warn, info, debug, trace or off, also by module: \
         warn,webhook_router=debug",
    )
}

impl Vars<'_> {
    pub(super) fn check_log(&mut self) {
        if let Some(Err(remedy)) = self.text(LOG).map(|text| log_filter(&text)) {
            self.problem(LOG, remedy);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_entry_has_a_level() {
        for text in ["info", "WARN", "off", "warn,webhook_router=debug", "a::b=trace", "0"] {
            assert!(log_filter(text).is_ok(), "{text}");
        }
        for text in
            ["verbose", "inof", "webhook_router", "a=zzz", "info,a", "info,", ",", "a=", "9"]
        {
            assert!(log_filter(text).is_err(), "{text}");
        }
    }
}
