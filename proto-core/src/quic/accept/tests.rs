use super::*;
use crate::rng::Seed;
use crate::test_origin::origin;

fn door(now: Instant) -> FrontDoor {
    FrontDoor::new(Some([7; 32]), &mut Rng::new(&Seed([1; 32])), now)
}

fn ids() -> RetryIds {
    RetryIds {
        original: Cid::new(b"original-destination").unwrap(),
        retry: Cid::new(b"retried!").unwrap(),
    }
}

const CLIENT: &str = "192.0.2.7:4000";

#[test]
fn a_token_opens_once_sealed_for_the_same_address_and_id() {
    let now = origin();
    let mut door = door(now);
    let mut token = [0; MAX_TOKEN_LEN];
    let len = door.seal(ids(), CLIENT.parse().unwrap(), &mut token, now);
    let opened = door.open(
        &token[..len],
        CLIENT.parse().unwrap(),
        &ids().retry,
        now + TOKEN_LIFETIME,
    );
    assert_eq!(opened, Some(ids()));
}

#[test]
fn a_token_is_bound_to_address_id_and_time() {
    let now = origin();
    let mut door = door(now);
    let mut token = [0; MAX_TOKEN_LEN];
    let len = door.seal(ids(), CLIENT.parse().unwrap(), &mut token, now);
    let token = &token[..len];
    assert_eq!(
        door.open(token, "192.0.2.7:4001".parse().unwrap(), &ids().retry, now),
        None
    );
    assert_eq!(
        door.open(token, "192.0.2.8:4000".parse().unwrap(), &ids().retry, now),
        None
    );
    assert_eq!(
        door.open(token, CLIENT.parse().unwrap(), &ids().original, now),
        None
    );
    let late = now + TOKEN_LIFETIME + Duration::from_millis(1);
    assert_eq!(
        door.open(token, CLIENT.parse().unwrap(), &ids().retry, late),
        None
    );
}

#[test]
fn no_changed_or_cut_token_opens() {
    let now = origin();
    let mut door = door(now);
    let mut sealed = [0; MAX_TOKEN_LEN];
    let len = door.seal(ids(), CLIENT.parse().unwrap(), &mut sealed, now);
    for at in 0..len {
        let mut forged = sealed[..len].to_vec();
        forged[at] ^= 1;
        assert_eq!(
            door.open(&forged, CLIENT.parse().unwrap(), &ids().retry, now),
            None
        );
        assert_eq!(
            door.open(&sealed[..at], CLIENT.parse().unwrap(), &ids().retry, now),
            None
        );
    }
    assert_eq!(
        door.open(&[0; 500], CLIENT.parse().unwrap(), &ids().retry, now),
        None
    );
}

#[test]
fn reset_tokens_survive_a_restart_with_the_same_key() {
    let now = origin();
    let cid = ids().retry;
    let other = FrontDoor::new(Some([7; 32]), &mut Rng::new(&Seed([2; 32])), now);
    assert_eq!(door(now).reset_token(&cid), other.reset_token(&cid));
    let unkeyed = FrontDoor::new(None, &mut Rng::new(&Seed([2; 32])), now);
    assert_ne!(unkeyed.reset_token(&cid), other.reset_token(&cid));
}
