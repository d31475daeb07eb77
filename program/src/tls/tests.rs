use std::fs::{self, Permissions};

use super::*;
use crate::pki::{Authority, Grants};
use crate::settings::{Environment, Flags, Schema};

const SCHEMA: Schema = Schema::new(&[&["cert_path", "key_path", "ca_cert"]], &[]);

struct Files {
    dir: PathBuf,
}

impl Files {
    fn new(name: &str) -> Self {
        let dir = std::env::temp_dir().join(format!("ztna-tls-{}-{name}", std::process::id()));
        let authority = Authority::create(&dir, 1).unwrap();
        let grants = Grants {
            agents: vec!["*".to_owned()],
            ..Grants::default()
        };
        for name in ["one", "two"] {
            crate::pki::write(&dir, name, &authority.issue(name, &grants, 1).unwrap()).unwrap();
        }
        Self { dir }
    }

    fn settings(&self, cert: Option<&str>, key: Option<&str>, ca: Option<&str>) -> Settings {
        let mut flags = Flags::default();
        let path = |name: &str| self.dir.join(name).display().to_string();
        flags.set("cert_path", cert.map(path).as_ref());
        flags.set("key_path", key.map(path).as_ref());
        flags.set("ca_cert", ca.map(path).as_ref());
        Settings::load(&SCHEMA, "/etc/ztna/x.json", flags, Environment::default()).unwrap()
    }

    fn refusal(&self, end: End, cert: Option<&str>, key: Option<&str>, ca: Option<&str>) -> String {
        let error = load(&self.settings(cert, key, ca), end, false).unwrap_err();
        error.to_string().replace(&self.dir.display().to_string(), "DIR")
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.dir);
    }
}

const CERT: Option<&str> = Some("one.pem");
const KEY: Option<&str> = Some("one.key");
const CA: Option<&str> = Some("ca.pem");

#[test]
fn files_that_fit_are_taken_and_the_reset_key_is_theirs() {
    let files = Files::new("good");
    let key = |name: &str| {
        let settings = files.settings(Some(&format!("{name}.pem")), Some(&format!("{name}.key")), CA);
        load(&settings, End::Server, false).unwrap().reset_key.unwrap()
    };
    assert_eq!(key("one"), key("one"), "the same after a restart");
    assert_ne!(key("one"), key("two"));
}

#[test]
fn missing_files_are_named_with_the_way_to_get_them() {
    let files = Files::new("missing");
    assert_eq!(
        files.refusal(End::Client, None, None, CA),
        "cert_path: missing; give the certificate of this program (`ztna pki issue` makes one) with --cert-path or \
         ZTNA_CERT_PATH, or in the file /etc/ztna/x.json"
    );
    assert_eq!(
        files.refusal(End::Client, CERT, None, CA),
        "key_path: missing; give the private key of cert_path with --key-path or ZTNA_KEY_PATH, or in the file \
         /etc/ztna/x.json"
    );
    assert_eq!(
        files.refusal(End::Server, CERT, KEY, None),
        "ca_cert: missing; give the CA that signs the clients' certificates (`ztna pki init` makes one) with \
         --ca-cert or ZTNA_CA_CERT, or in the file /etc/ztna/x.json"
    );
    assert_eq!(
        files.refusal(End::Client, Some("none.pem"), KEY, CA),
        "--cert-path: cannot read \"DIR/none.pem\": no such file or directory; create the file or name another"
    );
    assert_eq!(
        files.refusal(End::Client, CERT, KEY, Some(".")),
        "--ca-cert: \"DIR/.\" is not a file; name a PEM file"
    );
}

#[test]
fn a_key_that_others_can_read_is_refused() {
    let files = Files::new("mode");
    fs::set_permissions(files.dir.join("one.key"), Permissions::from_mode(0o640)).unwrap();
    assert_eq!(
        files.refusal(End::Client, CERT, KEY, CA),
        "--key-path: \"DIR/one.key\" can be read by others (mode 0640); run `chmod 600 DIR/one.key`"
    );
}

#[test]
fn files_that_hold_something_else_are_named() {
    let files = Files::new("junk");
    fs::write(files.dir.join("junk"), "junk").unwrap();
    fs::set_permissions(files.dir.join("junk"), Permissions::from_mode(0o600)).unwrap();
    let junk = Some("junk");
    assert_eq!(
        files.refusal(End::Client, junk, KEY, CA),
        "--cert-path: \"DIR/junk\": the certificate is not a PEM certificate chain; name a file with \
         -----BEGIN CERTIFICATE-----"
    );
    assert_eq!(
        files.refusal(End::Client, CERT, junk, CA),
        "--key-path: \"DIR/junk\": the private key is not an unencrypted PEM key; name a file with \
         -----BEGIN PRIVATE KEY-----"
    );
    assert_eq!(
        files.refusal(End::Client, CERT, Some("two.key"), CA),
        "--key-path: \"DIR/two.key\": the private key does not belong to the certificate; name the key that was made \
         together with cert_path"
    );
    assert_eq!(
        files.refusal(End::Client, CERT, KEY, junk),
        "--ca-cert: \"DIR/junk\": the CA file holds no PEM certificate; name a file with -----BEGIN CERTIFICATE-----"
    );
}

#[test]
fn insecure_development_needs_no_files() {
    let files = Files::new("insecure");
    let nothing = files.settings(None, None, None);
    assert!(load(&nothing, End::Server, true).unwrap().reset_key.is_some());
    assert!(load(&nothing, End::Client, true).unwrap().reset_key.is_none());
}
