//! Real servers of stores, each test's own, on free ports of loopback.

use std::{
    fs::File,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_credential_types::{Credentials, provider::SharedCredentialsProvider};
use aws_sdk_dynamodb::types::{
    AttributeDefinition, BillingMode, GlobalSecondaryIndex, KeySchemaElement, KeyType, Projection,
    ProjectionType, ScalarAttributeType,
};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use tempfile::TempDir;

use crate::support::free_port;

/// A certificate authority of the test's own.
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    folder: TempDir,
}

impl Authority {
    pub fn new() -> Self {
        let mut params = CertificateParams::new(vec![]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        // Unlike the name of what it issues, which OpenSSL would else take for issued by itself.
        params.distinguished_name.push(DnType::CommonName, "a test's authority");
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("ca.pem"), issuer.pem()).unwrap();
        Self { issuer, folder }
    }

    /// The certificate of the authority, in PEM.
    pub fn file(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    pub fn issue(&self, name: &str) -> (rcgen::Certificate, KeyPair) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        (params.signed_by(&key, &self.issuer).unwrap(), key)
    }
}

/// A redis-server that keeps nothing on disk, killed by its id when dropped.
pub struct Redis {
    child: Child,
    pub port: u16,
    folder: TempDir,
}

impl Redis {
    /// Starts one, and waits until it answers.
    pub fn start(options: &[&str]) -> Self {
        // Another process may take a free port first.
        for _ in 0..20 {
            // A cluster's second port is 10,000 above, and must be one.
            let port = std::iter::repeat_with(free_port).find(|port| *port < 55_000);
            let mut server = Self::start_loading_at(port.unwrap(), options);
            if server.comes_up() {
                return server;
            }
        }
        panic!("redis-server does not start");
    }

    pub fn start_at(port: u16, options: &[&str]) -> Self {
        let mut server = Self::start_loading_at(port, options);
        assert!(server.comes_up(), "redis-server does not start at port {port}");
        server
    }

    /// Whether it answers at some time, and does not end before.
    fn comes_up(&mut self) -> bool {
        for _ in 0..1200 {
            if self.cli(&["PING"]).starts_with("PONG") {
                // Or somebody else's answers.
                return self.child.try_wait().unwrap().is_none();
            }
            if self.child.try_wait().unwrap().is_some() {
                return false;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        false
    }

    /// Starts one, and does not wait.
    pub fn start_loading_at(port: u16, options: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        Self::spawn(folder, port, &[&["--port", &port.to_string()], options].concat())
    }

    /// One that speaks only TLS, to a user with a password.
    pub fn start_with_tls(authority: &Authority) -> (Self, String) {
        let port = free_port();
        let (certificate, key) = authority.issue("localhost");
        let folder = tempfile::tempdir().unwrap();
        // Relative to the folder that the server runs in.
        std::fs::write(folder.path().join("cert.pem"), certificate.pem()).unwrap();
        std::fs::write(folder.path().join("key.pem"), key.serialize_pem()).unwrap();
        let acl = "user default off\n\
                   user router on >test-password ~webhook:* ~{webhook:* +@all\n";
        std::fs::write(folder.path().join("users.acl"), acl).unwrap();
        let (port_text, ca) = (port.to_string(), authority.file());
        let ca = ca.to_str().unwrap();
        let server = Self::spawn(
            folder,
            port,
            &[
                "--port",
                "0",
                "--tls-port",
                &port_text,
                "--tls-auth-clients",
                "no",
                "--tls-ca-cert-file",
                ca,
                "--tls-cert-file",
                "cert.pem",
                "--tls-key-file",
                "key.pem",
                "--aclfile",
                "users.acl",
            ],
        );
        server.wait_until_ready(&[
            "-p",
            &port_text,
            "--tls",
            "--cacert",
            ca,
            "-h",
            "localhost",
            "--user",
            "router",
            "--pass",
            "test-password",
            "--no-auth-warning",
        ]);
        (server, format!("rediss://router:test-password@localhost:{port}/0"))
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    fn spawn(folder: TempDir, port: u16, options: &[&str]) -> Self {
        let log = File::create(folder.path().join("log")).unwrap();
        let child = Command::new("redis-server")
            .args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "no"])
            .args(options)
            .current_dir(folder.path())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .expect("redis-server is missing: run `make test`, which installs it");
        Self { child, port, folder }
    }

    fn wait_until_ready(&self, options: &[&str]) {
        let ping = || {
            let output = Command::new("redis-cli").args(options).arg("PING").output().unwrap();
            output.stdout.starts_with(b"PONG")
        };
        wait_for("redis-server", self.folder.path(), ping);
    }

    pub fn signal(&self, name: &str) {
        signal(&self.child, name);
    }

    /// What a command prints.
    pub fn cli(&self, arguments: &[&str]) -> String {
        let output = Command::new("redis-cli")
            .args(["-p", &self.port.to_string()])
            .args(arguments)
            .output()
            .unwrap();
        String::from_utf8(output.stdout).unwrap()
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A cluster of three masters, which come first among its nodes.
pub struct RedisCluster {
    pub nodes: Vec<Redis>,
}

impl RedisCluster {
    pub fn start() -> Self {
        Self::start_with_replicas(0)
    }

    /// With that many replicas of each master, behind the masters in the list.
    pub fn start_with_replicas(replicas: usize) -> Self {
        let options = ["--cluster-enabled", "yes", "--cluster-node-timeout", "1000"];
        let count = 3 * (1 + replicas);
        let nodes: Vec<_> = (0..count).map(|_| Redis::start(&options)).collect();
        let addresses = nodes.iter().map(|node| format!("127.0.0.1:{}", node.port));
        let created = Command::new("redis-cli")
            .args(["--cluster", "create"])
            .args(addresses)
            .args(["--cluster-replicas", &replicas.to_string(), "--cluster-yes"])
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&created.stdout);
        assert!(created.status.success() && text.contains("All 16384 slots covered"), "{text}");
        let cluster = Self { nodes };
        for node in &cluster.nodes {
            wait_for("the cluster", node.folder.path(), || {
                node.cli(&["CLUSTER", "INFO"]).contains("cluster_state:ok")
            });
        }
        cluster
    }

    pub fn url(&self) -> String {
        format!("{}?cluster=true", self.nodes[0].url())
    }
}

/// AWS's own DynamoDB Local, in memory, with one table as the router needs it.
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
        let credentials = Credentials::new("test", "test", None, None, "test");
        let sdk = SdkConfig::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::new("us-east-1"))
            .credentials_provider(SharedCredentialsProvider::new(credentials))
            .http_client(webhook_router::aws::http_client())
            .endpoint_url(&url)
            .build();
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

/// Asks until the answer is yes; what does not come within a minute is not coming.
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
