//! The router's connections to a target: client certificates, TLS versions, and names that lead where
//! no target can be.

use std::{fs, path::PathBuf, process::Command};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};
use webhook_router::{config::Config, destination::SendError, route::Route};

use crate::{
    destination::{OVER_TLS, TlsServer, cloud_run, send},
    servers::Authority,
    support::{PAYLOAD, Serve, lookup},
};

/// Writes a certificate of an authority for a client, and its key, to two files.
pub fn client_files(authority: &Authority, name: &str) -> (PathBuf, PathBuf) {
    let file = |kind: &str| authority.folder().join(format!("{name}.{kind}.pem"));
    let (certificate, key) = authority.issue(&[name]);
    fs::write(file("certificate"), certificate.pem()).unwrap();
    fs::write(file("key"), key.serialize_pem()).unwrap();
    (file("certificate"), file("key"))
}

/// Returns a name, other than localhost, that this machine resolves to a loopback address.
pub fn name_of_loopback() -> String {
    let own = Command::new("hostname").output().unwrap().stdout;
    let own = String::from_utf8(own).unwrap().trim().to_owned();
    let leads_here = |name: &String| {
        let addresses = std::net::ToSocketAddrs::to_socket_addrs(&(name.as_str(), 443));
        addresses.is_ok_and(|mut found| found.any(|address| address.ip().is_loopback()))
    };
    let names =
        [own, "ip6-localhost".into(), "ip6-loopback".into(), "localhost.localdomain".into()];
    let found = names.into_iter().find(leads_here);
    found.expect("no name of loopback but localhost: add ip6-localhost to /etc/hosts")
}

#[tokio::test]
async fn a_client_certificate_opens_a_service_that_asks_for_one() {
    let (authority, strangers) = (Authority::new(), Authority::new());
    let server = TlsServer::start_for_known_clients(&authority, "localhost").await;
    let (ca, url) = (authority.file(), format!("https://localhost:{}/", server.port));
    let serve = Serve::to_url(&url)
        .only(Route::GCP)
        .env("GCP_CA_FILE", ca.to_str().unwrap())
        .env("FORWARD_ATTEMPTS", "1");
    let with = |(certificate, key): (PathBuf, PathBuf)| {
        let certificate = ("GCP_CLIENT_CERT_FILE", certificate.to_str().unwrap().to_owned());
        let key = ("GCP_CLIENT_KEY_FILE", key.to_str().unwrap().to_owned());
        serve.clone().envs([certificate, key]).start()
    };
    let known = with(client_files(&authority, "router"));
    known.post(PAYLOAD).await.expect(200).says(OVER_TLS);
    for unknown in [serve.start(), with(client_files(&strangers, "stranger"))] {
        unknown.post(PAYLOAD).await.expect(502).says("destination unreachable");
    }
}

#[test]
fn a_client_certificate_that_cannot_be_used_is_named_with_its_file() {
    let authority = Authority::new();
    let (certificate, key) = client_files(&authority, "router");
    let (_, another) = client_files(&authority, "another");
    let locked = authority.folder().join("locked.pem");
    let text = "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n";
    fs::write(&locked, text).unwrap();
    let text = |path: &PathBuf| path.to_str().unwrap().to_owned();
    let (certificate, key, another) = (text(&certificate), text(&key), text(&another));
    let locked = text(&locked);
    let (of_certificate, of_key) = ("GCP_CLIENT_CERT_FILE", "GCP_CLIENT_KEY_FILE");
    for (given, variable, says) in [
        (["", &key], of_certificate, "must be set together with GCP_CLIENT_KEY_FILE".to_owned()),
        ([&certificate, ""], of_key, "must be set together with GCP_CLIENT_CERT_FILE".into()),
        (
            ["/nowhere", &key],
            of_certificate,
            "/nowhere cannot be used as a PEM file of a certificate".into(),
        ),
        (
            [&key, &key],
            of_certificate,
            format!("{key} cannot be used as a PEM file of a certificate"),
        ),
        (
            [&certificate, "/nowhere"],
            of_key,
            "/nowhere cannot be used as a PEM file of a private key".into(),
        ),
        (
            [&certificate, &certificate],
            of_key,
            format!("{certificate} cannot be used as a PEM file of a"),
        ),
        ([&certificate, &locked], of_key, "without a password".into()),
        (
            [&certificate, &another],
            of_key,
            format!("{another} is not the key of the certificate in {certificate}"),
        ),
    ] {
        let vars = [
            ("GCP_TARGET_URL", "https://processor.example.com"),
            ("ROUTE_THRESHOLD", "256"),
            (of_certificate, given[0]),
            (of_key, given[1]),
        ];
        let problems = Config::from_vars(lookup(&vars)).unwrap_err().0;
        assert_eq!(problems.len(), 1, "{problems:?}");
        assert_eq!(problems[0].variable, variable);
        assert!(problems[0].remedy.contains(&says), "{}", problems[0].remedy);
    }
}

#[test]
fn a_destination_of_a_table_can_have_a_client_certificate() {
    let authority = Authority::new();
    let (certificate, key) = client_files(&authority, "router");
    let problems = |fields: &str| {
        let table = format!(
            "[destinations.one]\nkind = \"http\"\nurl = \"https://one.example\"\nbytes = \"0-255\"\n\
             {fields}"
        );
        let problems = Config::read(lookup(&[("DESTINATIONS", &table)])).1;
        problems.into_iter().map(|problem| problem.remedy).collect::<Vec<_>>()
    };
    let certificate = format!("client_cert_file = {certificate:?}\n");
    let both = format!("{certificate}client_key_file = {key:?}\n");
    assert_eq!(problems(&both), Vec::<String>::new());
    for (fields, says) in [
        (certificate.clone(), "must be set together with client_key_file"),
        (
            format!("{certificate}client_key_file = \"/nowhere\""),
            "/nowhere cannot be used as a PEM file",
        ),
    ] {
        let told = problems(&fields);
        assert!(told.len() == 1 && told[0].contains(says), "{told:?}");
    }
}

#[tokio::test]
async fn a_server_that_speaks_only_tls_1_1_gets_nothing() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://localhost:{}/", listener.local_addr().unwrap().port());
    let server = tokio::spawn(async move {
        let (mut connection, _) = listener.accept().await.unwrap();
        // A record of TLS: its type, version and length.
        let mut head = [0; 5];
        connection.read_exact(&mut head).await.unwrap();
        let mut hello = vec![0; u16::from_be_bytes([head[3], head[4]]).into()];
        connection.read_exact(&mut hello).await.unwrap();
        // A ServerHello of TLS 1.1 (RFC 4346), with the suite TLS_RSA_WITH_AES_128_CBC_SHA.
        let body = [&[3, 2][..], &[7; 32], &[0, 0, 0x2f, 0]].concat();
        let message = [&[2, 0, 0, body.len() as u8][..], &body].concat();
        let record = [&[22, 3, 2, 0, message.len() as u8][..], &message].concat();
        connection.write_all(&record).await.unwrap();
        let mut rest = Vec::new();
        connection.read_to_end(&mut rest).await.unwrap();
        (hello, rest)
    });
    let error = send(&cloud_run(&url, None)).await.unwrap_err();
    assert!(matches!(error, SendError::NotSent { .. }), "{error:?}");
    let (hello, rest) = server.await.unwrap();
    // The router sends an alert, and nothing else.
    assert_eq!(rest.first(), Some(&21), "{rest:?}");
    // The extension supported_versions (RFC 8446, section 4.2.1) offers two versions.
    let at = hello.windows(5).position(|window| *window == [0, 43, 0, 5, 4]).unwrap();
    let mut offered = [[hello[at + 5], hello[at + 6]], [hello[at + 7], hello[at + 8]]];
    offered.sort_unstable();
    assert_eq!(offered, [[3, 3], [3, 4]], "TLS 1.2 and 1.3");
}

#[tokio::test]
async fn a_name_that_leads_to_this_machine_is_refused_at_each_attempt() {
    let authority = Authority::new();
    let name = name_of_loopback();
    let server = TlsServer::start(&authority, &name).await;
    let url = format!("https://{name}:{}/", server.port);
    let SendError::NotSent(detail) =
        send(&cloud_run(&url, Some(authority.file()))).await.unwrap_err()
    else {
        panic!("it may be tried again");
    };
    assert!(detail.contains(&format!("{name} resolves to ")), "{detail}");
    assert!(detail.contains(", a loopback address: correct its DNS record"), "{detail}");

    let serve = Serve::to_url(&url).only(Route::GCP).env("FORWARD_ATTEMPTS", "2");
    let router = serve.env("GCP_CA_FILE", authority.file().to_str().unwrap()).start();
    router.post(PAYLOAD).await.expect(502).says("destination unreachable");
    let log = router.log();
    assert!(log.matches(&format!("{name} resolves to ")).count() >= 2, "{log}");
    assert_eq!(server.connections(), 0);
}
