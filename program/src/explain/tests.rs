use super::*;

#[test]
fn a_refused_certificate_is_told_from_one_that_we_refuse() {
    let theirs = CloseReason::Peer {
        application: false,
        code: 0x100 + 48,
        reason: String::new(),
    };
    assert_eq!(
        ended(&theirs),
        "the intermediate refused our certificate (unknown_ca): check cert_path, and its ca_cert"
    );
    let ours = CloseReason::Local {
        application: false,
        code: 0x100 + 45,
    };
    assert_eq!(
        ended(&ours),
        "the certificate of the intermediate is not accepted (certificate_expired): check ca_cert, and that the \
         certificate names the server"
    );
}

#[test]
fn words_of_the_peer_cannot_break_the_line() {
    let reason = CloseReason::Peer {
        application: true,
        code: 7,
        reason: "a\nb\u{1b}[2J".to_owned(),
    };
    assert_eq!(ended(&reason).lines().count(), 1);
    assert!(!ended(&reason).contains('\u{1b}'));
}
