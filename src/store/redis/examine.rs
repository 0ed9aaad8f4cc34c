//! Checks a server by the information that it returns about itself.

use std::collections::HashMap;

use redis::Value;

use super::{
    super::{SUBJECT, StoreError},
    Redis,
};
use crate::finding::Finding;

/// The first version whose scripts can read the time and then write.
const LEAST_MAJOR: u32 = 5;

impl Redis {
    /// Requests the INFO of the server, or of each server in a cluster
    /// (<https://redis.io/docs/latest/commands/info/>).
    pub(super) async fn looked_at(&self) -> Vec<Finding> {
        let (info, place) = (redis::cmd("INFO"), &self.link.address);
        match self.command::<Value>(&info, self.link.deadline()).await {
            Ok(reply) => {
                let mut findings: Vec<_> =
                    servers(reply).iter().flat_map(|server| self.suits(server)).collect();
                // Servers of a cluster usually have the same settings.
                findings.sort_by(|one, other| one.text.cmp(&other.text));
                findings.dedup();
                findings
            }
            // The server's access list does not allow this user to call INFO.
            Err(StoreError::Failed(text)) if text.contains("no permissions") => {
                let text = format!(
                    "{place} answers; its user may not call INFO, which shows version, role and \
                     eviction policy"
                );
                vec![match super::Store::ping(self).await {
                    Ok(()) => Finding::ok(SUBJECT, text),
                    Err(error) => Finding::error(SUBJECT, error.to_string()),
                }]
            }
            Err(error) => {
                let error = error.to_string();
                let remedy = match error.contains("cluster support disabled") {
                    true => "remove ?cluster=true",
                    false => "the address, its user and password, or a firewall may be wrong",
                };
                vec![Finding::error(SUBJECT, format!("{error}: {remedy}"))]
            }
        }
    }

    /// Checks one server by its INFO.
    fn suits(&self, server: &HashMap<String, String>) -> Vec<Finding> {
        let place = &self.link.address;
        let field = |name: &str| server.get(name).map(String::as_str);
        let version = field("redis_version").unwrap_or("of an unknown version");
        let mut findings = vec![Finding::ok(SUBJECT, format!("{place} answers: Redis {version}"))];
        let major = version.split('.').next().and_then(|major| major.parse::<u32>().ok());
        if major.is_some_and(|major| major < LEAST_MAJOR) {
            let text = format!("{place} is Redis {version}: {LEAST_MAJOR} or later is needed");
            findings.push(Finding::error(SUBJECT, text));
        }
        if field("role") == Some("slave") && !self.link.is_cluster {
            let text = format!("{place} is a replica, which takes no claims: name the primary");
            findings.push(Finding::error(SUBJECT, text));
        }
        if field("cluster_enabled") == Some("1") && !self.link.is_cluster {
            let text = format!("{place} is one server of a cluster: add ?cluster=true");
            findings.push(Finding::error(SUBJECT, text));
        }
        if let Some(policy) = field("maxmemory_policy").filter(|policy| *policy != "noeviction") {
            let text = format!(
                "{place} evicts keys when its memory is short ({policy}), so an event may be \
                 delivered again: set maxmemory-policy noeviction"
            );
            findings.push(Finding::warning(SUBJECT, text));
        }
        findings
    }
}

/// Returns the fields of each server in the reply to INFO. The reply is a text, or for a cluster, a
/// map of texts.
fn servers(reply: Value) -> Vec<HashMap<String, String>> {
    let texts = match reply {
        Value::Map(servers) => servers.into_iter().map(|(_, text)| text).collect(),
        text => vec![text],
    };
    let texts = texts.into_iter().filter_map(|text| redis::from_redis_value::<String>(text).ok());
    texts.map(|text| fields(&text)).collect()
}

fn fields(info: &str) -> HashMap<String, String> {
    let fields = info.lines().filter_map(|line| line.split_once(':'));
    fields.map(|(name, value)| (name.to_owned(), value.trim().to_owned())).collect()
}
