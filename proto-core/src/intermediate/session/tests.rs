use std::time::Duration;

use super::*;

#[test]
fn an_allowance_is_spent_at_once_and_comes_back_evenly() {
    let start = crate::test_origin::origin();
    let allowance = Allowance::for_services(16);
    let burst = MESSAGES_BESIDES + 16 * MESSAGES_PER_SERVICE;
    let mut bucket = allowance.of_a_new_client(start);
    let take =
        |bucket: &mut Bucket, at: Duration| (0..).take_while(|_| allowance.take(bucket, start + at)).count();
    assert_eq!(take(&mut bucket, Duration::ZERO), burst as usize);
    assert_eq!(
        take(&mut bucket, Duration::from_secs(1)),
        burst.div_ceil(REFILL_SECONDS) as usize
    );
    assert_eq!(take(&mut bucket, Duration::from_secs(3600)), burst as usize);
    // Time running backwards gives nothing.
    assert_eq!(take(&mut bucket, Duration::ZERO), 0);
    assert!(Allowance::for_services(usize::MAX).burst > 0);
}

#[test]
fn leases_are_found_by_name_and_end_one_by_one() {
    let start = crate::test_origin::origin();
    let at = |seconds| start + Duration::from_secs(seconds);
    let name = |text: &str| ServiceId::parse(text.as_bytes()).expect("a name");
    let allowance = Allowance::for_services(1).of_a_new_client(start);
    let mut control = Control::new(allowance);
    for (service, until) in [("web", 5), ("db", 3), ("ssh", 4), ("db", 9)] {
        control.lease(&name(service), at(until));
    }
    assert_eq!(control.first_expiry(), Some(at(4)));
    assert_eq!(control.expired(at(3)), []);
    assert_eq!(control.expired(at(5)), [name("ssh"), name("web")]);
    assert!(control.end_lease(&name("ssh")));
    assert!(!control.end_lease(&name("ssh")));
    assert!(control.end_lease(&name("web")) && control.end_lease(&name("db")));
    assert_eq!(control.first_expiry(), None);
}
