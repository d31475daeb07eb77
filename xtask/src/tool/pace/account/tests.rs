use super::Account;

#[test]
fn an_account_is_read_back() {
    let account = Account {
        sent: 1,
        received: 2,
        quick: 3,
        slow: 4,
        duplicates: 5,
        wrong: 6,
        unreachable: 7,
        gap_us: 8,
        late_us: 9,
    };
    assert_eq!(format!("cut {account}").parse::<Account>().unwrap(), account);
    assert!("cut account 1 2".parse::<Account>().is_err());
}
