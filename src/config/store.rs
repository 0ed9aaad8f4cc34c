//! The kind of store and its address.

use std::{
    fmt,
    path::{Path, PathBuf},
    time::Duration,
};

use url::Url;

use super::{ConfigErrors, vars::Vars};
use crate::{authorities::Authorities, secret::Secret};

const REDIS_CA_FILE: &str = "REDIS_CA_FILE";

#[derive(Debug, Clone)]
pub struct StoreConfig {
    pub url: StoreUrl,
    /// The time limit for one operation.
    pub timeout: Duration,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoreUrl {
    Sqlite(PathBuf),
    Redis(RedisUrl),
    DynamoDb { table: String },
}

impl StoreUrl {
    /// Returns the path of a store that is a file of this machine.
    pub fn file(&self) -> Option<&Path> {
        match self {
            Self::Sqlite(path) => Some(path),
            Self::Redis(_) | Self::DynamoDb { .. } => None,
        }
    }

    /// Returns whether the store needs AWS's region and credentials.
    pub fn uses_aws(&self) -> bool {
        matches!(self, Self::DynamoDb { .. })
    }

    /// Returns the private CA that the store's certificate is checked with, and its variable.
    pub fn authorities(&self) -> Option<(&'static str, &Authorities)> {
        match self {
            Self::Redis(redis) => Some((REDIS_CA_FILE, redis.ca.as_ref()?)),
            Self::Sqlite(_) | Self::DynamoDb { .. } => None,
        }
    }
}

/// Shows the address to a person, without user and password.
impl fmt::Display for StoreUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sqlite(path) => write!(f, "sqlite:{}", path.display()),
            Self::DynamoDb { table } => write!(f, "dynamodb://{table}"),
            Self::Redis(redis) => redis.fmt(f),
        }
    }
}

/// The address of a Redis.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RedisUrl {
    /// `redis://` or `rediss://`, with user, password and database number, and without the router's
    /// own options.
    pub url: Secret,
    /// True to use the protocol of a cluster.
    pub cluster: bool,
    /// A private CA that is trusted for the server's certificate instead of public and system
    /// roots.
    pub ca: Option<Authorities>,
}

/// Writes scheme, host and port for a person, without user and password.
impl fmt::Display for RedisUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let url = Url::parse(self.url.expose()).ok();
        let host = url.as_ref().and_then(Url::host_str).unwrap_or("redis");
        let port = url.as_ref().and_then(Url::port).unwrap_or(6379);
        let scheme = if self.is_tls() { "rediss" } else { "redis" };
        write!(f, "{scheme}://{host}:{port}")
    }
}

impl RedisUrl {
    pub fn is_tls(&self) -> bool {
        self.url.expose().starts_with("rediss:")
    }
}

impl StoreConfig {
    /// Reads only the variables that name the store.
    ///
    /// # Errors
    /// Fails with every problem, not only the first.
    pub fn from_vars(get: impl Fn(&str) -> Option<String>) -> Result<Self, ConfigErrors> {
        let mut vars = Vars::new(&get);
        let store = vars.store();
        vars.finish(store)
    }
}

impl Vars<'_> {
    pub(super) fn store(&mut self) -> StoreConfig {
        StoreConfig { url: self.store_url(), timeout: self.millis("STORE_TIMEOUT_MS") }
    }

    fn store_url(&mut self) -> StoreUrl {
        const NOWHERE: StoreUrl = StoreUrl::Sqlite(PathBuf::new());
        let given = ["STORE_URL", "REDIS_URL"]
            .into_iter()
            .find_map(|name| self.text(name).map(|text| (name, text)));
        let Some((name, url)) = given else {
            if self.in_lambda {
                self.problem("STORE_URL", "must be set: dynamodb://TABLE, redis:// or rediss://");
                return NOWHERE;
            }
            return StoreUrl::Sqlite("webhook-router.db".into());
        };
        match self.parse_store_url(&url, name) {
            Ok(url) => url,
            Err(remedy) => {
                self.problem(name, remedy);
                NOWHERE
            }
        }
    }

    fn parse_store_url(&mut self, url: &str, name: &str) -> Result<StoreUrl, &'static str> {
        if let Some(path) = url.strip_prefix("sqlite:").filter(|_| name == "STORE_URL") {
            return match path {
                _ if path.is_empty() || path.starts_with(":memory:") => {
                    Err("names no file: use sqlite:PATH")
                }
                _ if path.starts_with("//") => {
                    Err("must have no `//` before the path: sqlite:/var/lib/router.db")
                }
                _ if self.in_lambda => {
                    Err("sqlite: cannot be used in Lambda, whose instances share no disk \
                         (for an emulator on one machine, set LAMBDA_EMULATOR=true)")
                }
                path => Ok(StoreUrl::Sqlite(path.into())),
            };
        }
        if let Some(table) = url.strip_prefix("dynamodb://").filter(|_| name == "STORE_URL") {
            // https://docs.aws.amazon.com/amazondynamodb/latest/APIReference/API_CreateTable.html
            let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
            return if (3..=255).contains(&table.len()) && table.bytes().all(is_name) {
                Ok(StoreUrl::DynamoDb { table: table.into() })
            } else {
                Err("names no table: dynamodb://TABLE, 3 to 255 letters, digits, `_`, `.` or `-`")
            };
        }
        match Url::parse(url) {
            Ok(url) if matches!(url.scheme(), "redis" | "rediss") => {
                let has_ca = self.text(REDIS_CA_FILE).is_some();
                let redis = redis_url(url, has_ca)?;
                Ok(StoreUrl::Redis(RedisUrl { ca: self.authorities(REDIS_CA_FILE), ..redis }))
            }
            _ if name == "REDIS_URL" => Err("must be redis:// or rediss://"),
            _ => Err("is not a store: use dynamodb://TABLE, redis://, rediss:// or sqlite:PATH"),
        }
    }
}

fn redis_url(mut url: Url, has_ca: bool) -> Result<RedisUrl, &'static str> {
    if url.host_str().is_none_or(str::is_empty) {
        return Err("names no host: redis://HOST:PORT");
    }
    if url.fragment().is_some() {
        return Err("has a `#`: write it as %23 in a password");
    }
    let mut cluster = false;
    for (name, value) in url.query_pairs() {
        cluster = match (&*name, &*value) {
            ("cluster", "true") => true,
            ("cluster", "false") => false,
            _ => return Err("takes no option but ?cluster=true"),
        };
    }
    url.set_query(None);
    if has_ca && url.scheme() != "rediss" {
        return Err("has no TLS, but REDIS_CA_FILE is set: use rediss://");
    }
    let database = url.path().trim_start_matches('/');
    match database.parse::<u32>() {
        Ok(number) if cluster && number > 0 => Err("takes no database number in a cluster"),
        Err(_) if !database.is_empty() => Err("takes a database number as its path: /0"),
        _ => Ok(RedisUrl { url: Secret::new(url), cluster, ca: None }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::lookup;

    fn store(vars: &[(&str, &str)]) -> Result<StoreUrl, String> {
        let config = StoreConfig::from_vars(lookup(vars));
        config.map(|config| config.url).map_err(|errors| errors.to_string())
    }

    #[test]
    fn an_address_names_one_kind_of_store() {
        for (url, shown, file, uses_aws) in [
            ("sqlite:a/b.db", "sqlite:a/b.db", Some("a/b.db"), false),
            ("dynamodb://web.hooks-1", "dynamodb://web.hooks-1", None, true),
            ("redis://u:plainly@cache/2", "redis://cache:6379", None, false),
            ("rediss://cache:6380?cluster=true", "rediss://cache:6380", None, false),
        ] {
            let store = store(&[("STORE_URL", url)]).unwrap();
            assert_eq!(store.to_string(), shown);
            assert_eq!((store.file(), store.uses_aws()), (file.map(Path::new), uses_aws));
            assert!(store.authorities().is_none());
        }
        assert_eq!(store(&[]).unwrap().file(), Some(Path::new("webhook-router.db")));
        let both = [("REDIS_URL", "redis://cache"), ("STORE_URL", "sqlite:x.db")];
        assert_eq!(store(&both).unwrap().to_string(), "sqlite:x.db");
        assert_eq!(store(&both[..1]).unwrap().to_string(), "redis://cache:6379");
    }

    #[test]
    fn a_cluster_and_a_database_are_options_of_redis() {
        let redis = |url| match store(&[("STORE_URL", url)]) {
            Ok(StoreUrl::Redis(redis)) => Ok((redis.url.expose().to_owned(), redis.cluster)),
            Ok(other) => panic!("{other}"),
            Err(error) => Err(error),
        };
        let plain = |url: &str, cluster| Ok((url.to_owned(), cluster));
        assert_eq!(redis("redis://h/2"), plain("redis://h/2", false));
        assert_eq!(redis("redis://h?cluster=true"), plain("redis://h", true));
        assert_eq!(redis("redis://h/0?cluster=true"), plain("redis://h/0", true));
        assert_eq!(redis("redis://h?cluster=false"), plain("redis://h", false));
        for (wrong, remedy) in [
            ("redis://h/1?cluster=true", "no database number"),
            ("redis://h#x", "%23"),
            ("redis://h/x", "a database number"),
            ("redis://h?cluster=maybe", "no option but"),
        ] {
            assert!(redis(wrong).unwrap_err().contains(remedy), "{wrong}");
        }
    }

    #[test]
    fn a_table_has_a_name_that_dynamodb_takes() {
        let table = |name: &str| store(&[("STORE_URL", &format!("dynamodb://{name}"))]);
        for good in ["abc", &"a".repeat(255), "A_.-9"] {
            assert!(table(good).is_ok(), "{good}");
        }
        for wrong in ["", "ab", &"a".repeat(256), "a/b", "täble"] {
            assert!(table(wrong).unwrap_err().contains("names no table"), "{wrong}");
        }
    }
}
