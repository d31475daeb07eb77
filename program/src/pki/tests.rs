use std::os::unix::fs::PermissionsExt as _;

use proto_core::quic::identity::{Capacity, Identity, names_address};
use proto_core::quic::quiche::{CLIENT_GROUPS, PemIdentity, QuicheConfig, QuicheProvider, Verify};

use super::*;

struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        Self(std::env::temp_dir().join(format!("ztna-pki-{}-{name}", std::process::id())))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

fn strings(list: &[&str]) -> Vec<String> {
    list.iter().map(|text| (*text).to_owned()).collect()
}

fn der(pem: &str) -> Vec<u8> {
    x509_parser::pem::parse_x509_pem(pem.as_bytes())
        .unwrap()
        .1
        .contents
}

fn service(name: &str) -> ServiceId {
    ServiceId::parse(name.as_bytes()).unwrap()
}

#[test]
fn an_authority_survives_on_disk_and_its_certificates_are_accepted() {
    let scratch = Scratch::new("accepted");
    Authority::create(&scratch.0, 30).unwrap();
    let authority = Authority::open(&scratch.0).unwrap();
    let grants = Grants {
        servers: strings(&["relay.example.com", "192.0.2.1", "2001:db8::1"]),
        agents: strings(&["web-app"]),
        connectors: strings(&["*"]),
    };
    let issued = authority.issue("all", &grants, 30).unwrap();
    let config = QuicheConfig {
        alpn: vec![b"ztna-v1".to_vec()],
        session_alpn: Vec::new(),
        identity: Some(PemIdentity {
            chain: issued.certificate.clone().into_bytes(),
            key: issued.key.clone().into_bytes(),
        }),
        trusted: authority.certificate().as_bytes().to_vec(),
        verify: Verify::Required,
        groups: CLIENT_GROUPS,
        idle_timeout: Duration::from_secs(30),
        max_udp_payload: proto_core::config::limits::MAX_UDP_PAYLOAD,
        send_queue: 8,
        receive_queue: 8,
    };
    QuicheProvider::new(&config).unwrap();

    let der = der(&issued.certificate);
    let identity = Identity::from_certificate(&der).unwrap();
    assert!(identity.names(Capacity::Agent, &service("web-app")));
    assert!(!identity.names(Capacity::Agent, &service("db")));
    assert!(identity.names(Capacity::Connector, &service("db")));
    assert!(names_address(&der, "192.0.2.1".parse().unwrap()));
    assert!(names_address(&der, "2001:db8::1".parse().unwrap()));
}

#[test]
fn key_usages_follow_what_the_holder_is() {
    let scratch = Scratch::new("usages");
    let authority = Authority::create(&scratch.0, 30).unwrap();
    let usages = |grants: &Grants| {
        let der = der(&authority.issue("x", grants, 30).unwrap().certificate);
        let (_, certificate) = x509_parser::parse_x509_certificate(&der).unwrap();
        let usage = certificate.extended_key_usage().unwrap().unwrap().value;
        (usage.server_auth, usage.client_auth)
    };
    let server = Grants {
        servers: strings(&["relay"]),
        ..Grants::default()
    };
    let agent = Grants {
        agents: strings(&["a"]),
        ..Grants::default()
    };
    let connector = Grants {
        connectors: strings(&["a"]),
        ..Grants::default()
    };
    assert_eq!(usages(&server), (true, false));
    assert_eq!(usages(&agent), (false, true));
    assert_eq!(usages(&connector), (false, true));
    let ca = der(authority.certificate());
    let (_, ca) = x509_parser::parse_x509_certificate(&ca).unwrap();
    assert!(ca.is_ca());
}

#[test]
fn keys_are_for_their_owner_and_nothing_is_overwritten() {
    let scratch = Scratch::new("files");
    let authority = Authority::create(&scratch.0, 30).unwrap();
    assert_eq!(mode(&scratch.0.join(CA_KEY)), 0o600);
    let before = fs::read(scratch.0.join(CA_KEY)).unwrap();
    assert!(matches!(
        Authority::create(&scratch.0, 30),
        Err(PkiError::Exists(_))
    ));
    assert_eq!(fs::read(scratch.0.join(CA_KEY)).unwrap(), before);

    let grants = Grants {
        agents: strings(&["a"]),
        ..Grants::default()
    };
    let issued = authority.issue("phone", &grants, 30).unwrap();
    let out = scratch.0.join("out");
    let (certificate, key) = write(&out, "phone", &issued).unwrap();
    assert_eq!(mode(&key), 0o600);
    assert!(certificate.ends_with("out/phone.pem"));
    assert!(matches!(write(&out, "phone", &issued), Err(PkiError::Exists(_))));
}

#[test]
fn names_that_cannot_stand_in_a_certificate_are_refused() {
    let scratch = Scratch::new("names");
    let authority = Authority::create(&scratch.0, 30).unwrap();
    let refused = |grants: Grants| authority.issue("x", &grants, 30).unwrap_err();
    assert!(matches!(refused(Grants::default()), PkiError::NoName));
    for bad in ["", "bücher", "a b"] {
        let agents = Grants {
            agents: strings(&[bad]),
            ..Grants::default()
        };
        let servers = Grants {
            servers: strings(&[bad]),
            ..Grants::default()
        };
        assert!(matches!(refused(agents), PkiError::Name(_)), "{bad:?}");
        assert!(matches!(refused(servers), PkiError::Name(_)), "{bad:?}");
    }
    let issued = ephemeral().unwrap();
    for bad in ["", "../x", ".x", "a/b", "ca"] {
        assert!(
            matches!(write(&scratch.0, bad, &issued), Err(PkiError::Name(_))),
            "{bad:?}"
        );
    }
}

#[test]
fn a_directory_without_an_authority_is_told_from_a_damaged_one() {
    let scratch = Scratch::new("open");
    assert!(matches!(
        Authority::open(&scratch.0),
        Err(PkiError::NoAuthority(_))
    ));
    Authority::create(&scratch.0, 30).unwrap();
    fs::write(scratch.0.join(CA_CERTIFICATE), "junk").unwrap();
    assert!(matches!(Authority::open(&scratch.0), Err(PkiError::Authority(_))));
}

#[test]
fn nothing_shows_a_key() {
    let issued = ephemeral().unwrap();
    assert!(!format!("{issued:?}").contains("PRIVATE"));
}
