//! What is said about bad settings: one line, exit code 2.

use super::process::{command, finish};
use super::stage::EXE;

#[test]
fn bad_flags_are_one_line_that_names_the_flag_and_the_fix() {
    for (words, expected) in [
        (
            &["forward"][..],
            "ztna: TARGET: missing; say where to, for example web-app:8080 --listen 127.0.0.1:8080\n",
        ),
        (
            &["forward", "web-app"],
            "ztna: TARGET: \"web-app\" has no port; write for example web-app:8080, [fd7a:746e:6100::1:1]:80 or dns:53/udp\n",
        ),
        (
            &["forward", "a:1", "b:2", "--listen", "127.0.0.1:1"],
            "ztna: --listen: given 1 times for 2 targets; give one for each target, or none, or use --forward \
             ADDRESS:PORT=TARGET\n",
        ),
        (
            &[
                "forward",
                "a:80",
                "--listen",
                "0.0.0.0:80",
                "--intermediate-server",
                "relay",
            ],
            "ztna: --listen: 0.0.0.0:80 can be reached from other hosts, which nobody would ask for a certificate; \
             listen on 127.0.0.1 or [::1], or add --allow-remote-clients if that is wanted\n",
        ),
        (
            &["socks", "--intermediate-server", "relay"],
            "ztna: services: missing; list them in the configuration file, or name each with --service\n",
        ),
        (
            &["socks", "--intermediate-server", "relay", "--service", "a=b"],
            "ztna: --service: \"a=b\" has no IP address behind the =; write for example web-app=10.100.0.1\n",
        ),
        (
            &["connect", "10.100.0.9:22", "--intermediate-server", "relay"],
            "ztna: 10.100.0.9: no service has this address; name the service, or give it the address with --service \
             ID=ADDRESS\n",
        ),
        (
            &["connect", "dns:53/udp"],
            "ztna: TARGET: datagrams have no place in a pipe; name a TCP port; `ztna forward` carries UDP\n",
        ),
    ] {
        let ended = finish(
            command(EXE)
                .args(words)
                .args(["--config", "/dev/null"].iter().take(0)),
        );
        assert_eq!(
            (ended.code, ended.stderr.as_str()),
            (Some(2), expected),
            "{words:?}"
        );
    }
}
