use super::{Nat, can_meet};

#[test]
fn names_are_read_back() {
    for nat in Nat::ALL {
        assert_eq!(nat.name().parse::<Nat>().unwrap(), nat);
    }
    let error = "cone".parse::<Nat>().unwrap_err().to_string();
    assert!(error.contains("full-cone"), "{error}");
}

#[test]
fn whoever_can_meet_can_be_met() {
    for a in Nat::ALL {
        for b in Nat::ALL {
            assert_eq!(can_meet(a, b), can_meet(b, a), "{a} {b}");
        }
    }
}

#[test]
fn theory_is_what_the_measurements_found() {
    let strict = [Nat::PortRestricted, Nat::Linux, Nat::LinuxGuarded];
    let moving = [Nat::AddressDependent, Nat::Symmetric, Nat::Sequential];
    for b in moving {
        for a in strict.into_iter().chain(moving) {
            assert!(!can_meet(a, b), "{a} {b}");
        }
        for a in [Nat::Open, Nat::FullCone, Nat::AddressRestricted] {
            assert!(can_meet(a, b), "{a} {b}");
        }
    }
    for a in strict {
        for b in strict {
            assert!(can_meet(a, b), "{a} {b}");
        }
    }
    for a in Nat::ALL {
        assert!(!can_meet(a, Nat::UdpBlocked), "{a}");
    }
}
