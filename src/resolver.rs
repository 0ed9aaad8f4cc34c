//! Name resolution for destinations.
//!
//! A person who controls the DNS of a target's name could lead the router's requests to this machine, or
//! to the metadata service of its cloud, also long after the name was first looked up. So the
//! addresses are checked at each connection, and exactly the checked addresses are connected to.
//! Private addresses are allowed, because services in a VPC have them.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    pin::Pin,
    task::{Context, Poll},
    vec,
};

use hyper_util::client::legacy::connect::dns::{GaiResolver, Name};
use tower_service::Service;
use url::{Host, Url};

/// Resolves the names of one client with the system's resolver.
#[derive(Clone)]
pub struct Resolver {
    system: GaiResolver,
    allowed: Allowed,
}

/// Addresses to which a name may lead.
#[derive(Clone, Copy)]
enum Allowed {
    All,
    /// This machine, and every address where a target can be.
    Loopback,
    /// Every address where a target can be.
    Targets,
}

impl Resolver {
    /// Creates a resolver for the endpoints of AWS's SDKs, and of Google's tokens. Every address is
    /// allowed for them, because Google Cloud's metadata server has a link-local one. Their
    /// settings and TLS certificates protect them.
    pub fn open() -> Self {
        Self { system: GaiResolver::new(), allowed: Allowed::All }
    }

    /// Creates the resolver for a target. If its URL names `localhost`, that may be this machine. An
    /// address in the URL needs no resolver.
    pub fn of_target(url: &Url) -> Self {
        let allowed = match url.host() {
            Some(Host::Domain(name)) => match name.trim_end_matches('.') {
                "localhost" => Allowed::Loopback,
                name if name.ends_with(".localhost") => Allowed::Loopback,
                _ => Allowed::Targets,
            },
            Some(Host::Ipv4(_) | Host::Ipv6(_)) | None => Allowed::All,
        };
        Self { allowed, ..Self::open() }
    }

    /// Checks the addresses of a name. One forbidden address is enough to refuse the name: it is
    /// wrong or hostile, and it must not matter which address the router tries first.
    ///
    /// # Errors
    /// Fails with the first forbidden address.
    pub fn check(&self, host: &str, addresses: &[SocketAddr]) -> Result<(), Forbidden> {
        let forbidden = addresses.iter().find_map(|address| {
            let address = address.ip();
            let is_allowed = match self.allowed {
                Allowed::All => true,
                Allowed::Loopback => address.is_loopback(),
                Allowed::Targets => false,
            };
            let kind = kind(address).filter(|_| !is_allowed)?;
            Some(Forbidden { host: host.to_owned(), address, kind })
        });
        forbidden.map_or(Ok(()), Err)
    }
}

/// A name that leads to an address where no target can be.
#[derive(Debug, thiserror::Error)]
#[error(
    "{host} resolves to {address}, {kind}: correct its DNS record, or name the address itself in \
     the URL"
)]
pub struct Forbidden {
    host: String,
    address: IpAddr,
    kind: &'static str,
}

impl Service<Name> for Resolver {
    type Response = vec::IntoIter<SocketAddr>;
    type Error = Box<dyn std::error::Error + Send + Sync>;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.system.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let (resolving, resolver) = (self.system.call(name.clone()), self.clone());
        Box::pin(async move {
            let addresses: Vec<_> = resolving.await?.collect();
            resolver.check(name.as_str(), &addresses)?;
            Ok(addresses.into_iter())
        })
    }
}

/// Returns the kind of an address where no target can be. Returns `None` for all others.
fn kind(address: IpAddr) -> Option<&'static str> {
    let address = match address {
        IpAddr::V4(address) => address,
        IpAddr::V6(address) => match address.segments() {
            segments if is_metadata_v6(segments) => return Some(METADATA),
            _ if address.is_loopback() => return Some("a loopback address"),
            _ if address.is_unspecified() => return Some("an unspecified address"),
            _ if address.is_unicast_link_local() => return Some("a link-local address"),
            _ => embedded(address)?,
        },
    };
    match address.octets() {
        octets if is_metadata_v4(octets) => Some(METADATA),
        // Linux connects to this machine for 0.0.0.0. No host has one of the other addresses in
        // 0.0.0.0/8.
        [0, ..] => Some("an unspecified address"),
        _ if address.is_loopback() => Some("a loopback address"),
        _ if address.is_link_local() => Some("a link-local address"),
        _ => None,
    }
}

const METADATA: &str = "the address of a metadata service";

/// Returns whether this is the address of a cloud's metadata service, or of another service that
/// the hypervisor below each virtual machine offers. Further addresses of such services are
/// link-local, and so refused anyway: 169.254.170.2 of Amazon ECS, 169.254.0.23 of Tencent Cloud
/// and 169.254.42.42 of Scaleway.
fn is_metadata_v4(octets: [u8; 4]) -> bool {
    match octets {
        // AWS, Google Cloud, Azure, Oracle Cloud, DigitalOcean, OpenStack and others.
        [169, 254, 169, 254]
        // Alibaba Cloud (<https://www.alibabacloud.com/help/en/ens/instance-metadata>).
        | [100, 100, 100, 200]
        // Azure's host, a public address
        // (<https://learn.microsoft.com/azure/virtual-network/what-is-ip-address-168-63-129-16>).
        | [168, 63, 129, 16]
        // Oracle Cloud Classic and Cloud at Customer
        // (<https://docs.oracle.com/en/cloud/cloud-at-customer/occ-get-started/retrieve-predefined-instance-metadata.html>).
        | [192, 0, 0, 192] => true,
        _ => false,
    }
}

/// Returns the same for IPv6. These addresses are private, and not link-local.
fn is_metadata_v6(segments: [u16; 8]) -> bool {
    match segments {
        // AWS: fd00:ec2::254, and further services of each machine's hypervisor, such as
        // fd00:ec2::23 of EKS
        // (<https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/instancedata-data-retrieval.html>).
        [0xfd00, 0xec2, ..]
        // Google Cloud (<https://cloud.google.com/compute/docs/metadata/querying-metadata>).
        | [0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254]
        // Alibaba Cloud and Oracle Cloud (DataSourceAliYun.py and DataSourceOracle.py of cloud-init:
        // <https://github.com/canonical/cloud-init/tree/main/cloudinit/sources>).
        | [0xfd00, 0x100, 0, 0, 0, 0, 0x100, 0x200]
        | [0xfd00, 0xc1, 0, 0, 0, 0, 0xa9fe, 0xa9fe]
        // Akamai (<https://docs.cloud-init.io/en/latest/reference/datasources/akamai.html>).
        | [0xfd00, 0xa9fe, 0xa9fe, 0, 0, 0, 0, 1]
        // Scaleway (<https://docs.cloud-init.io/en/latest/reference/datasources/scaleway.html>).
        | [0xfd00, 0x42, 0, 0, 0, 0, 0, 0x42] => true,
        _ => false,
    }
}

/// Returns the IPv4 address that an IPv6 address stands for: mapped (RFC 4291), or behind a NAT64
/// gateway (RFC 6052).
fn embedded(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let [.., high, low] = address.segments();
    let is_embedded = matches!(
        address.segments(),
        [0, 0, 0, 0, 0, 0xffff, ..] | [0, 0, 0, 0, 0, 0, ..] | [0x64, 0xff9b, 0, 0, 0, 0, ..]
    );
    is_embedded.then(|| Ipv4Addr::from((u32::from(high) << 16) | u32::from(low)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(texts: &[&str]) -> Vec<SocketAddr> {
        texts.iter().map(|text| SocketAddr::new(text.parse().unwrap(), 443)).collect()
    }

    fn resolver(url: &str) -> Resolver {
        Resolver::of_target(&url.parse().unwrap())
    }

    #[test]
    fn a_name_does_not_lead_to_this_machine_or_its_metadata_service() {
        let resolver = resolver("https://processor.example.com/events");
        for (address, kind) in [
            ("127.0.0.1", "a loopback address"),
            ("127.255.255.254", "a loopback address"),
            ("::1", "a loopback address"),
            ("::ffff:127.0.0.1", "a loopback address"),
            ("64:ff9b::127.0.0.1", "a loopback address"),
            ("0.0.0.0", "an unspecified address"),
            ("0.1.2.3", "an unspecified address"),
            ("::", "an unspecified address"),
            ("::ffff:0.0.0.0", "an unspecified address"),
            ("169.254.0.1", "a link-local address"),
            ("169.254.170.2", "a link-local address"),
            ("::ffff:169.254.0.1", "a link-local address"),
            ("fe80::1", "a link-local address"),
            ("febf:ffff::1", "a link-local address"),
            ("169.254.169.254", "the address of a metadata service"),
            ("::ffff:169.254.169.254", "the address of a metadata service"),
            ("64:ff9b::169.254.169.254", "the address of a metadata service"),
            ("fd00:ec2::254", "the address of a metadata service"),
            ("fd20:ce::254", "the address of a metadata service"),
            ("fd00:ec2::23", "the address of a metadata service"),
            ("fd00:c1::a9fe:a9fe", "the address of a metadata service"),
            ("fd00:42::42", "the address of a metadata service"),
            ("fd00:100::100:200", "the address of a metadata service"),
            ("fd00:a9fe:a9fe::1", "the address of a metadata service"),
            ("100.100.100.200", "the address of a metadata service"),
            ("::ffff:100.100.100.200", "the address of a metadata service"),
            ("64:ff9b::168.63.129.16", "the address of a metadata service"),
            ("168.63.129.16", "the address of a metadata service"),
            ("192.0.0.192", "the address of a metadata service"),
            ("169.254.42.42", "a link-local address"),
        ] {
            // One such address among others is enough.
            for found in [vec![address], vec!["93.184.216.34", address]] {
                let refused = resolver.check("h", &addresses(&found)).unwrap_err().to_string();
                let address: IpAddr = address.parse().unwrap();
                assert!(
                    refused.starts_with(&format!("h resolves to {address}, {kind}")),
                    "{refused}"
                );
            }
        }
    }

    #[test]
    fn a_name_may_lead_to_public_and_private_addresses() {
        let found = [
            "93.184.216.34",
            "10.0.0.1",
            "172.16.0.1",
            "192.168.0.1",
            "100.64.0.1",
            "100.100.100.199",
            "168.63.129.15",
            "192.0.0.191",
            "169.253.255.255",
            "169.255.0.0",
            "128.0.0.1",
            "2606:2800:220:1::1",
            "fd00::1",
            "fd00:ec3::254",
            "fd20:ce::255",
            "fd00:c1::a9fe:a9ff",
            "fd00:42::43",
            "fd00:100::100:201",
            "fd00:a9fe:a9fe::2",
            "fec0::1",
            "::ffff:10.0.0.1",
            "64:ff9b::10.0.0.1",
        ];
        assert!(resolver("https://h.example").check("h", &addresses(&found)).is_ok());
    }

    #[test]
    fn a_url_that_names_this_machine_means_it() {
        let found = addresses(&["127.0.0.1", "::1"]);
        for url in [
            "http://localhost:9090",
            "http://localhost./",
            "https://api.localhost",
            "https://127.0.0.1",
            "https://[::1]",
        ] {
            assert!(resolver(url).check("h", &found).is_ok(), "{url}");
        }
        for url in ["https://localhost.example", "https://notlocalhost", "https://h.local"] {
            assert!(resolver(url).check("h", &found).is_err(), "{url}");
        }
        let elsewhere = addresses(&["169.254.169.254"]);
        assert!(resolver("https://api.localhost").check("h", &elsewhere).is_err());
        assert!(Resolver::open().check("h", &found).is_ok());
    }
}
