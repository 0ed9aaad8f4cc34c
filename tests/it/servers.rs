//! Real servers of stores, separate for each test, on free ports of loopback.

use std::{
    fs::File,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use aws_config::SdkConfig;
use aws_sdk_dynamodb::types::{
    AttributeDefinition, BillingMode, GlobalSecondaryIndex, KeySchemaElement, KeyType, Projection,
    ProjectionType, ScalarAttributeType,
};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use tempfile::TempDir;

use crate::support::{free_port, sdk, venv};

/// A certificate authority for one test.
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    folder: TempDir,
}

impl Authority {
    pub fn new() -> Self {
        let mut params = CertificateParams::new(vec![]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        // The name differs from the names of its certificates. Otherwise OpenSSL would take these
        // for self-issued ones.
        params.distinguished_name.push(DnType::CommonName, "a test's authority");
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("ca.pem"), issuer.pem()).unwrap();
        Self { issuer, folder }
    }

    /// Returns the file with the authority's certificate, in PEM.
    pub fn file(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    pub fn issue(&self, names: &[&str]) -> (rcgen::Certificate, KeyPair) {
        let key = KeyPair::generate().unwrap();
        let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
        let params = CertificateParams::new(names).unwrap();
        (params.signed_by(&key, &self.issuer).unwrap(), key)
    }
}

/// A redis-server that keeps nothing on disk, killed by its id when dropped.
pub struct Redis {
    child: Child,
    pub port: u16,
    folder: TempDir,
    /// The arguments with which redis-cli gets access.
    access: Vec<String>,
}

impl Redis {
    /// Starts a server, and waits until it answers.
    pub fn start(options: &[&str]) -> Self {
        Self::start_anywhere(|port| Self::start_loading_at(port, options))
    }

    pub fn start_at(port: u16, options: &[&str]) -> Self {
        let mut server = Self::start_loading_at(port, options);
        assert!(server.comes_up(), "redis-server does not start at port {port}");
        server
    }

    /// Starts a server, and does not wait.
    pub fn start_loading_at(port: u16, options: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let access = vec!["-p".to_owned(), port.to_string()];
        Self::spawn(folder, port, access, &[&["--port", &port.to_string()], options].concat())
    }

    /// Starts a server that accepts only TLS, and a user with a password.
    pub fn start_with_tls(authority: &Authority) -> (Self, String) {
        let server = Self::start_anywhere(|port| Self::start_with_tls_at(port, authority, &[]));
        let url = format!("rediss://router:test-password@localhost:{}/0", server.port);
        (server, url)
    }

    fn start_with_tls_at(port: u16, authority: &Authority, options: &[&str]) -> Self {
        // The nodes of a cluster announce each other's addresses.
        let (certificate, key) = authority.issue(&["localhost", "127.0.0.1"]);
        let folder = tempfile::tempdir().unwrap();
        // The paths are relative to the server's folder.
        std::fs::write(folder.path().join("cert.pem"), certificate.pem()).unwrap();
        std::fs::write(folder.path().join("key.pem"), key.serialize_pem()).unwrap();
        let acl = "user default off\n\
                   user router on >test-password ~webhook:* ~{webhook:* +@all\n";
        std::fs::write(folder.path().join("users.acl"), acl).unwrap();
        let (port_text, ca) = (port.to_string(), authority.file());
        let ca = ca.to_str().unwrap();
        let access = format!(
            "-p {port} --tls --cacert {ca} -h localhost --user router --pass test-password \
             --no-auth-warning"
        );
        let access = access.split(' ').map(str::to_owned).collect();
        let tls = [
            ["--port", "0"],
            ["--tls-port", &port_text],
            ["--tls-auth-clients", "no"],
            ["--tls-ca-cert-file", ca],
            ["--tls-cert-file", "cert.pem"],
            ["--tls-key-file", "key.pem"],
            ["--aclfile", "users.acl"],
        ];
        Self::spawn(folder, port, access, &[&tls.concat(), options].concat())
    }

    fn spawn(folder: TempDir, port: u16, access: Vec<String>, options: &[&str]) -> Self {
        let log = File::create(folder.path().join("log")).unwrap();
        let child = Command::new("redis-server")
            .args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "no"])
            .args(options)
            .current_dir(folder.path())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .expect("redis-server is missing: run `make test`, which installs it");
        Self { child, port, folder, access }
    }

    /// Starts a server at a free port. If another process takes the port first, tries another one.
    fn start_anywhere(start: impl Fn(u16) -> Self) -> Self {
        for _ in 0..20 {
            // A cluster's second port is 10,000 higher, and must be a valid port.
            let port = std::iter::repeat_with(free_port).find(|port| *port < 55_000);
            let mut server = start(port.unwrap());
            if server.comes_up() {
                return server;
            }
        }
        panic!("redis-server does not start");
    }

    /// Returns whether the server answers in time, and has not ended before.
    fn comes_up(&mut self) -> bool {
        for _ in 0..1200 {
            if self.cli(&["PING"]).starts_with("PONG") {
                // Otherwise, the answer comes from another process's server.
                return self.child.try_wait().unwrap().is_none();
            }
            if self.child.try_wait().unwrap().is_some() {
                return false;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        false
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    pub fn signal(&self, name: &str) {
        signal(&self.child, name);
    }

    /// Runs a command, and returns its output.
    pub fn cli(&self, arguments: &[&str]) -> String {
        let output = Command::new("redis-cli").args(&self.access).args(arguments).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A cluster of three masters, which are the first of its nodes.
pub struct RedisCluster {
    pub nodes: Vec<Redis>,
}

impl RedisCluster {
    const OPTIONS: [&str; 4] = ["--cluster-enabled", "yes", "--cluster-node-timeout", "1000"];

    pub fn start() -> Self {
        Self::start_with_replicas(0)
    }

    /// Starts a cluster that does not declare a node dead before the test ends.
    pub fn start_patiently() -> Self {
        let options = ["--cluster-enabled", "yes", "--cluster-node-timeout", "120000"];
        Self::of((0..3).map(|_| Redis::start(&options)).collect(), 0)
    }

    /// Starts a cluster with this many replicas of each master. The replicas follow the masters in
    /// the list.
    pub fn start_with_replicas(replicas: usize) -> Self {
        let nodes = (0..3 * (1 + replicas)).map(|_| Redis::start(&Self::OPTIONS));
        Self::of(nodes.collect(), replicas)
    }

    /// Starts a cluster that accepts only TLS, and a user with a password, as ElastiCache
    /// Serverless does.
    pub fn start_with_tls(authority: &Authority) -> (Self, String) {
        let user = ["--masteruser", "router", "--masterauth", "test-password"];
        let options = [&Self::OPTIONS[..], &["--tls-cluster", "yes"], &user].concat();
        let start = |port| Redis::start_with_tls_at(port, authority, &options);
        let cluster = Self::of((0..3).map(|_| Redis::start_anywhere(start)).collect(), 0);
        let port = cluster.nodes[0].port;
        (cluster, format!("rediss://router:test-password@localhost:{port}?cluster=true"))
    }

    fn of(nodes: Vec<Redis>, replicas: usize) -> Self {
        let cluster = Self { nodes };
        let addresses = cluster.nodes.iter().map(|node| format!("127.0.0.1:{}", node.port));
        let addresses: Vec<_> = addresses.collect();
        let mut create = vec!["create"];
        create.extend(addresses.iter().map(String::as_str));
        let replicas = replicas.to_string();
        create.extend(["--cluster-replicas", &replicas]);
        let output = cluster.manager(&create).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(text.contains("All 16384 slots covered"), "{text}");
        for node in &cluster.nodes {
            wait_for("the cluster", node.folder.path(), || {
                node.cli(&["CLUSTER", "INFO"]).contains("cluster_state:ok")
            });
        }
        cluster
    }

    /// Returns a command of redis-cli's cluster manager.
    pub fn manager(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("redis-cli");
        command.args(&self.nodes[0].access).arg("--cluster").args(arguments).arg("--cluster-yes");
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        command
    }

    pub fn url(&self) -> String {
        format!("{}?cluster=true", self.nodes[0].url())
    }
}

/// AWS's own DynamoDB Local, in memory, with one table in the form that the router needs.
pub struct DynamoDbLocal {
    child: Child,
    pub sdk: SdkConfig,
    pub url: String,
    pub port: u16,
    _folder: TempDir,
}

impl DynamoDbLocal {
    pub const TABLE: &str = "webhook-router";

    pub async fn start() -> Self {
        Self::start_at(free_port()).await
    }

    pub async fn start_at(port: u16) -> Self {
        let home = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/dynamodb-local");
        assert!(home.exists(), "DynamoDB Local is missing: run `make test`, which installs it");
        let folder = tempfile::tempdir().unwrap();
        let log = File::create(folder.path().join("log")).unwrap();
        let child = Command::new("java")
            .args(["-Xmx256m", "-Djava.library.path=./DynamoDBLocal_lib", "-jar"])
            .args(["DynamoDBLocal.jar", "-inMemory", "-port", &port.to_string()])
            .current_dir(home)
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .expect("java is missing: run `make test`, which installs it");
        let url = format!("http://127.0.0.1:{port}");
        let sdk = sdk(&url);
        wait_for("DynamoDB Local", folder.path(), || {
            std::net::TcpStream::connect(("127.0.0.1", port)).is_ok()
        });
        let local = Self { child, sdk, url, port, _folder: folder };
        local.create_table().await;
        local
    }

    pub fn signal(&self, name: &str) {
        signal(&self.child, name);
    }

    async fn create_table(&self) {
        let attribute = |name: &str| {
            let definition = AttributeDefinition::builder().attribute_name(name);
            definition.attribute_type(ScalarAttributeType::S).build().unwrap()
        };
        let key = |name: &str, kind: KeyType| {
            KeySchemaElement::builder().attribute_name(name).key_type(kind).build().unwrap()
        };
        let index = GlobalSecondaryIndex::builder()
            .index_name(webhook_router::store::DYNAMODB_INDEX)
            .key_schema(key("dead", KeyType::Hash))
            .key_schema(key("dead_letter", KeyType::Range))
            .projection(Projection::builder().projection_type(ProjectionType::KeysOnly).build())
            .build()
            .unwrap();
        aws_sdk_dynamodb::Client::new(&self.sdk)
            .create_table()
            .table_name(Self::TABLE)
            .billing_mode(BillingMode::PayPerRequest)
            .set_attribute_definitions(Some(["key", "dead", "dead_letter"].map(attribute).into()))
            .key_schema(key("key", KeyType::Hash))
            .global_secondary_indexes(index)
            .send()
            .await
            .unwrap();
    }
}

impl Drop for DynamoDbLocal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn signal(child: &Child, name: &str) {
    let id = child.id().to_string();
    assert!(Command::new("kill").args([&format!("-{name}"), &id]).status().unwrap().success());
}

/// moto's server, which stands for several services of AWS.
pub struct Moto {
    child: Child,
    pub url: String,
    folder: TempDir,
}

impl Moto {
    pub fn start() -> Self {
        let (port, folder) = (free_port(), tempfile::tempdir().unwrap());
        let child = Command::new(venv("moto_server"))
            .args(["-H", "127.0.0.1", "-p", &port.to_string()])
            .stdout(Stdio::null())
            .stderr(File::create(folder.path().join("log")).unwrap())
            .spawn()
            .unwrap();
        let moto = Self { child, url: format!("http://127.0.0.1:{port}"), folder };
        wait_for("moto", moto.folder.path(), || {
            std::net::TcpStream::connect(("127.0.0.1", port)).is_ok()
        });
        moto
    }

    /// Returns the number of requests so far.
    pub fn requests(&self) -> usize {
        let log = std::fs::read_to_string(self.folder.path().join("log")).unwrap();
        log.matches(" HTTP/1.1\"").count()
    }
}

impl Drop for Moto {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Waits until a condition is true, for at most a minute.
pub fn wait_for(what: &str, folder: &Path, ready: impl Fn() -> bool) {
    for _ in 0..1200 {
        if ready() {
            return;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    let log = std::fs::read_to_string(folder.join("log")).unwrap_or_default();
    panic!("{what} did not become ready; its log:\n{log}");
}
