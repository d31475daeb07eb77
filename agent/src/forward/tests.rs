use super::*;

fn args(targets: &[&str], listen: &[&str], forward: &[&str]) -> ForwardArgs {
    let own = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        rootless: RootlessArgs,
    }
    let line = <Line as clap::Parser>::parse_from(["ztna"]);
    ForwardArgs {
        targets: own(targets),
        listen: own(listen),
        forward: own(forward),
        allow_remote_clients: false,
        rootless: line.rootless,
    }
}

fn shown(args: &ForwardArgs) -> Vec<String> {
    let pairs = args.pairs().unwrap();
    let show = |pair: &Pair| format!("{} {} {}", pair.place, pair.listen, pair.target);
    pairs.iter().map(show).collect()
}

#[test]
fn targets_and_listeners_are_paired_in_order() {
    assert_eq!(
        shown(&args(
            &["a:1", "[fd00::1]:2/udp"],
            &["127.0.0.1:8080", "[::1]:53"],
            &["127.0.0.1:3=c.ztna:33/tcp"],
        )),
        [
            "--listen 127.0.0.1:8080 a:1",
            "--listen [::1]:53 [fd00::1]:2/udp",
            "--forward 127.0.0.1:3 c.ztna:33",
        ]
    );
    assert_eq!(
        shown(&args(&["a:8080", "dns:53/udp"], &[], &[])),
        [
            "--listen 127.0.0.1:8080 a:8080",
            "--listen 127.0.0.1:53 dns:53/udp"
        ]
    );
}

#[test]
fn what_does_not_pair_is_refused() {
    for wrong in [
        args(&["a:1"], &["x", "y"], &[]),
        args(&[], &[], &[]),
        args(&[], &["127.0.0.1:1"], &["127.0.0.1:2=a:1"]),
        args(&[], &[], &["127.0.0.1:2"]),
        args(&["a"], &[], &[]),
    ] {
        assert!(wrong.pairs().is_err(), "{wrong:?}");
    }
}
