use super::Account;

#[test]
fn an_account_survives_being_printed() {
    let account = Account {
        sent: 9,
        received: 7,
        foreign: 1,
        corrupt: 2,
        duplicate: 3,
        unreachable: 4,
        silence_ms: 555,
    };
    assert_eq!(account.to_string().parse::<Account>().unwrap(), account);
    assert_eq!(account.lost(), 2);
    assert!("flow 1 2 3".parse::<Account>().is_err());
    assert!("first reply".parse::<Account>().is_err());
}
