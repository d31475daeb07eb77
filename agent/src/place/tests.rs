use super::*;

#[test]
fn a_lock_is_held_once_and_says_by_whom() {
    let path = std::env::temp_dir().join(format!("ztna-lock-{}", std::process::id()));
    let held = Lock::take(&path).unwrap();
    match Lock::take(&path) {
        Err(LockError::Held(pid)) => assert_eq!(pid, Some(std::process::id())),
        other => panic!("{other:?}"),
    }
    drop(held);
    Lock::within(&path, Duration::ZERO).unwrap();
    std::fs::remove_file(&path).unwrap();
}

#[test]
fn files_are_named_after_the_interface_and_the_socket_as_wished() {
    let usual = Place::below(Path::new("/run/ztna"), "ztna0", None);
    assert_eq!(usual.control, Path::new("/run/ztna/ztna0.sock"));
    assert_eq!(usual.journal, Path::new("/run/ztna/ztna0.journal"));
    let given = Place::below(Path::new("/run/ztna"), "ztna0", Some(Path::new("/tmp/x")));
    assert_eq!(given.control, Path::new("/tmp/x"));
    assert_eq!(given.lock, usual.lock);
}
