//! The address that `serve` listens on.

use std::net::{Ipv4Addr, SocketAddr, ToSocketAddrs as _};

use tokio::net::TcpListener;

use super::http_server;
use crate::config::{Config, ConfigError, Unsigned};

/// The variable for the port of `serve`.
pub const PORT: &str = "PORT";
/// The variable for the store.
pub const STORE: &str = "STORE_URL";
/// The variable for the address of `/metrics`.
pub const METRICS: &str = "METRICS_LISTEN";

/// Reads a number (a port of loopback), a host and a port, or an IP address and a port.
///
/// # Errors
/// Fails if the text is not an address, or the host has none. The error describes a valid address.
pub fn parse_listen(text: &str) -> Result<SocketAddr, String> {
    if let Ok(port) = text.parse() {
        return Ok((Ipv4Addr::LOCALHOST, port).into());
    }
    if let Ok(address) = text.parse() {
        return Ok(address);
    }
    let must = || {
        "must be a port, or a host and a port, such as 8080, 0.0.0.0:8080 or [::1]:8080".to_owned()
    };
    let (host, port) = text.rsplit_once(':').ok_or_else(must)?;
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b".-_".contains(&byte);
    if host.is_empty() || !host.bytes().all(is_name) || port.parse::<u16>().is_err() {
        return Err(must());
    }
    let found = text.to_socket_addrs().map_err(|error| format!("{host}: {error}"))?;
    let found: Vec<_> = found.collect();
    // `localhost` has an IPv4 and an IPv6 address. Most clients try IPv4 when IPv6 refuses.
    let chosen = found.iter().find(|address| address.is_ipv4()).or(found.first());
    chosen.copied().ok_or_else(|| format!("{host} has no address"))
}

/// Decides where `serve` listens, and adapts the configuration to it. On loopback, `serve` accepts
/// unsigned envelopes from this machine. On other addresses, it needs another routing secret than
/// the example, which is the default.
pub fn settle(
    listen: Option<SocketAddr>,
    config: &mut Config,
    problems: &mut Vec<ConfigError>,
) -> SocketAddr {
    let address = listen.unwrap_or(match config.port {
        Some(port) => (Ipv4Addr::UNSPECIFIED, port).into(),
        None => (Ipv4Addr::LOCALHOST, 8080).into(),
    });
    if !address.ip().is_loopback() {
        let own = config.intake.own_secret_problem();
        let own = own.filter(|own| is_sound(&own.variable, problems));
        problems.extend(own);
    } else if config.intake.unsigned == Unsigned::Refused {
        config.intake.unsigned = Unsigned::FromThisMachine;
    }
    address
}

/// Returns whether a variable has no problem.
pub fn is_sound(variable: &str, problems: &[ConfigError]) -> bool {
    problems.iter().all(|problem| problem.variable != variable)
}

/// Returns whether the store's variables have no problem. If they have one, the configured store is
/// only a placeholder.
pub fn has_store(problems: &[ConfigError]) -> bool {
    [STORE, "REDIS_URL", "REDIS_CA_FILE"].iter().all(|name| is_sound(name, problems))
}

/// Listens on an address that a variable sets.
///
/// # Errors
/// Fails if the address cannot be used. The error names the variable and the remedy.
pub fn bind(variable: &str, address: SocketAddr) -> Result<TcpListener, ConfigError> {
    http_server::bind(address).map_err(|error| {
        let other = if variable == PORT { " (--listen or PORT)" } else { "" };
        let remedy = format!(
            "cannot listen on {address}: {error}: stop the process that listens there, or choose \
             another address{other}"
        );
        ConfigError { variable: variable.into(), remedy }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_alone_means_loopback_and_a_name_is_looked_up() {
        for (text, address) in [
            ("8083", "127.0.0.1:8083"),
            ("0", "127.0.0.1:0"),
            ("localhost:8083", "127.0.0.1:8083"),
            ("0.0.0.0:80", "0.0.0.0:80"),
            ("[::1]:80", "[::1]:80"),
        ] {
            assert_eq!(parse_listen(text), Ok(address.parse().unwrap()), "{text}");
        }
        for text in ["", "localhost", ":8080", "65536", "localhost:x", "http://localhost:80", "::1"]
        {
            assert!(parse_listen(text).unwrap_err().starts_with("must be a port"), "{text}");
        }
    }
}
