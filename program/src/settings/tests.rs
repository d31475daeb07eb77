use std::path::PathBuf;

use super::*;

const SCHEMA: Schema = Schema::new(
    &[
        &["port", "bind_addr", "disable_retry", "runtime"],
        &["p2p.port", "p2p.cert", "services[].id", "services[].virtualIp"],
    ],
    &["config", "insecure_dev"],
);

/// A directory that is removed with the test.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("ztna-settings-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn file(&self, content: &str) -> String {
        let path = self.0.join("config.json");
        std::fs::write(&path, content).unwrap();
        path.display().to_string()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn load(file: &str, flags: &[(&'static str, &str)], variables: &[(&str, &str)]) -> Result<Settings, String> {
    let mut given = Flags::default();
    given.set("config", Some(&file.to_owned()));
    for (key, value) in flags {
        given.set(key, Some(&(*value).to_owned()));
    }
    let environment = variables
        .iter()
        .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
        .collect();
    Settings::load(&SCHEMA, "/nonexistent/default.json", given, environment)
        .map_err(|error| error.to_string())
}

/// The error for a file, with the file's name taken out.
fn refusal(name: &str, content: &str) -> String {
    let scratch = Scratch::new(name);
    let file = scratch.file(content);
    load(&file, &[], &[]).unwrap_err().replace(&file, "FILE")
}

#[test]
fn flags_come_before_the_environment_before_the_file_before_the_default() {
    let scratch = Scratch::new("layers");
    let file = scratch.file(r#"{"port": 3, "p2p": {"port": 30}}"#);
    let port = |settings: &Settings, key| settings.or(key, 4, Input::port).unwrap();
    let all = load(&file, &[("port", "1")], &[("ZTNA_PORT", "2")]).unwrap();
    assert_eq!(port(&all, "port"), 1);
    let two = load(&file, &[], &[("ZTNA_PORT", "2"), ("ZTNA_P2P_PORT", "20")]).unwrap();
    assert_eq!((port(&two, "port"), port(&two, "p2p.port")), (2, 20));
    let one = load(&file, &[], &[("ZTNA_PORT", "")]).unwrap();
    assert_eq!((port(&one, "port"), port(&one, "p2p.port")), (3, 30));
    let none = load(&scratch.file("{}"), &[], &[]).unwrap();
    assert_eq!((port(&none, "port"), port(&none, "p2p.port")), (4, 4));
}

#[test]
fn a_wrong_value_names_the_layer_it_comes_from() {
    let scratch = Scratch::new("place");
    let file = scratch.file(r#"{"port": "4433"}"#);
    let message = |flags: &[(&'static str, &str)], variables: &[(&str, &str)]| {
        let settings = load(&file, flags, variables).unwrap();
        let error = settings.or("port", 0, Input::port).unwrap_err().to_string();
        error.replace(&file, "FILE")
    };
    assert_eq!(
        message(&[("port", "70000")], &[]),
        r#"--port: "70000" is not a number from 0 to 65535; give a whole number from 0 to 65535"#
    );
    assert_eq!(
        message(&[], &[("ZTNA_PORT", "x")]),
        r#"ZTNA_PORT: "x" is not a number from 0 to 65535; give a whole number from 0 to 65535"#
    );
    assert_eq!(
        message(&[], &[]),
        r#"FILE: port: "4433" is not a number from 0 to 65535; give a whole number from 0 to 65535, without quotes"#
    );
}

#[test]
fn a_default_file_may_be_missing_and_a_named_one_may_not() {
    let settings = Settings::load(
        &SCHEMA,
        "/nonexistent/default.json",
        Flags::default(),
        Environment::default(),
    );
    assert!(settings.unwrap().file_name().is_none());
    assert_eq!(
        load("/nonexistent/ztna.json", &[], &[]).unwrap_err(),
        "--config /nonexistent/ztna.json: cannot read: no such file or directory; create it or name another file"
    );
    let environment = [("ZTNA_CONFIG".to_owned(), "/nonexistent/b.json".to_owned())];
    let error = Settings::load(
        &SCHEMA,
        "/nonexistent/default.json",
        Flags::default(),
        environment.into_iter().collect(),
    );
    assert_eq!(
        error.unwrap_err().to_string(),
        "ZTNA_CONFIG /nonexistent/b.json: cannot read: no such file or directory; create it or name another file"
    );
    assert_eq!(
        load("/", &[], &[]).unwrap_err(),
        "--config /: not a file; name a JSON file"
    );
}

#[test]
fn broken_json_is_shown_with_its_line_and_column() {
    assert_eq!(
        refusal("syntax", "{\n  \"port\": 1\n  \"p2p\": {}\n}"),
        "FILE:3:3: not valid JSON: expected `,` or `}`; correct the file there"
    );
    assert_eq!(
        refusal("empty", ""),
        "FILE:1:0: not valid JSON: EOF while parsing a value; correct the file there"
    );
    assert_eq!(
        refusal("list", "[]"),
        "FILE: not a JSON object; write the settings between { and }"
    );
}

#[test]
fn unknown_keys_are_refused_with_the_probable_one() {
    assert_eq!(
        refusal("typo", r#"{"prot": 1}"#),
        "FILE: prot: unknown key; did you mean \"port\"?"
    );
    assert_eq!(
        refusal("case", r#"{"bindAddr": "::"}"#),
        "FILE: bindAddr: unknown key; did you mean \"bind_addr\"?"
    );
    assert_eq!(
        refusal("nested", r#"{"p2p": {"crt": "x"}}"#),
        "FILE: p2p.crt: unknown key; did you mean \"cert\"?"
    );
    assert_eq!(
        refusal("element", r#"{"services": [{"id": "a"}, {"ident": "b"}]}"#),
        "FILE: services[1].ident: unknown key; known keys here: id, virtualIp"
    );
    assert_eq!(
        refusal("strange", r#"{"telemetry": true}"#),
        "FILE: telemetry: unknown key; known keys here: bind_addr, disable_retry, p2p, port, runtime, services"
    );
    assert_eq!(
        refusal("plain", r#"{"port": {"udp": 1}}"#),
        "FILE: port.udp: unknown key; give a plain value instead of an object"
    );
    assert_eq!(
        refusal("outside", r#"{"insecure_dev": true}"#),
        "FILE: insecure_dev: cannot be set in a file; remove it, and use --insecure-dev or ZTNA_INSECURE_DEV"
    );
    assert_eq!(
        refusal("newline", "{\"a\\nb\\u001b\": 1}").lines().count(),
        1,
        "one line, whatever the key"
    );
}

#[test]
fn comments_are_ignored_everywhere() {
    let scratch = Scratch::new("comments");
    let file = scratch.file(
        r#"{"_comment": "x", "_comment_port": {"any": 1}, "p2p": {"_comment_cert": []}, "services": [{"_comment": 1}]}"#,
    );
    assert!(load(&file, &[], &[]).is_ok());
}

#[test]
fn values_of_the_wrong_kind_are_refused() {
    let scratch = Scratch::new("kinds");
    let file = scratch.file(
        r#"{"port": {}, "bind_addr": "localhost", "disable_retry": "yes", "runtime": "toki", "services": {}, "p2p": {"cert": ""}}"#,
    );
    let settings = load(&file, &[], &[]).unwrap();
    let input = |key| settings.input(key).unwrap();
    let text = |error: SettingsError| error.to_string().replace(&file, "FILE");
    assert_eq!(
        text(input("port").port().unwrap_err()),
        "FILE: port: an object is not a number from 0 to 65535; give a whole number from 0 to 65535"
    );
    assert_eq!(
        text(input("bind_addr").ip("0.0.0.0").unwrap_err()),
        r#"FILE: bind_addr: "localhost" is not an IP address; write for example "0.0.0.0""#
    );
    assert_eq!(
        text(input("disable_retry").switch().unwrap_err()),
        r#"FILE: disable_retry: "yes" is neither true nor false; write true or false, without quotes"#
    );
    let choices = [("mio", 1), ("tokio", 2)];
    assert_eq!(
        text(input("runtime").choice(&choices).unwrap_err()),
        r#"FILE: runtime: "toki" is not known here; did you mean "tokio"?"#
    );
    assert_eq!(
        text(input("services").list().unwrap_err()),
        "FILE: services: an object is not a list; put it into square brackets"
    );
    assert_eq!(
        text(input("p2p.cert").path().unwrap_err()),
        r#"FILE: p2p.cert: empty; write for example "/etc/ztna/cert.pem", or remove the key"#
    );
    assert_eq!(
        text(input("bind_addr").member("port", "a port").unwrap_err()),
        r#"FILE: bind_addr: "localhost" is not an object; write {"port": …}"#
    );
}

#[test]
fn missing_values_say_how_to_give_them() {
    let none = Settings::load(
        &SCHEMA,
        "/etc/ztna/x.json",
        Flags::default(),
        Environment::default(),
    );
    assert_eq!(
        none.unwrap().missing("p2p.cert", "a certificate").to_string(),
        "p2p.cert: missing; give a certificate with --p2p-cert or ZTNA_P2P_CERT, or in the file /etc/ztna/x.json"
    );
    let scratch = Scratch::new("missing");
    let file = scratch.file("{}");
    let settings = load(&file, &[], &[]).unwrap();
    assert_eq!(
        settings
            .missing("port", "a port")
            .to_string()
            .replace(&file, "FILE"),
        "FILE: port: missing; give a port with --port or ZTNA_PORT, or in the file"
    );
}

#[test]
fn strange_variables_are_found() {
    let scratch = Scratch::new("strange");
    let file = scratch.file("{}");
    let settings = load(
        &file,
        &[],
        &[("ZTNA_PORT", "1"), ("ZTNA_PROT", "1"), ("PATH", "x")],
    )
    .unwrap();
    assert_eq!(settings.strange_variables(&[&SCHEMA]), ["ZTNA_PROT"]);
}
