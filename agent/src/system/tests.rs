use super::*;

fn folder(name: &str) -> PathBuf {
    let path = std::env::temp_dir().join(format!("ztna-system-{}-{name}", std::process::id()));
    std::fs::create_dir_all(&path).unwrap();
    path
}

fn place(folder: &Path) -> Place {
    Place {
        lock: folder.join("lock"),
        control: folder.join("sock"),
        journal: folder.join("ztna0.journal"),
    }
}

#[test]
fn a_journal_is_worked_off_once_and_again_does_no_harm() {
    let folder = folder("twice");
    let place = place(&folder);
    let path = folder.join("resolv.conf");
    let before = "nameserver 192.0.2.1\n";
    std::fs::write(&path, before).unwrap();
    let (original, text) = Original::read(&path).unwrap();
    let mut journal = Journal::new("ztna0");
    journal.resolv_conf = Some(ResolvConf {
        path: path.clone(),
        original,
    });
    journal.write(&place.journal).unwrap();
    assert_eq!(Journal::read(&place.journal).unwrap().as_ref(), Some(&journal));
    // Killed between journal and change.
    assert!(restore(&place).unwrap().is_empty());
    assert!(!place.journal.exists());
    // Killed after the change.
    journal.write(&place.journal).unwrap();
    let ours = resolv_conf::ours(&text, "ztna0", [10, 100, 255, 1].into());
    resolv_conf::write(&path, &ours, resolv_conf::MODE).unwrap();
    assert_eq!(restore(&place).unwrap(), [path.display().to_string()]);
    assert_eq!(std::fs::read_to_string(&path).unwrap(), before);
    // Somebody who comes too late with the same journal.
    journal.write(&place.journal).unwrap();
    std::fs::write(&path, "nameserver 192.0.2.2\n").unwrap();
    assert!(restore(&place).unwrap().is_empty());
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "nameserver 192.0.2.2\n");
    assert!(restore(&place).unwrap().is_empty());
    std::fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn a_journal_that_cannot_be_read_is_told_and_kept() {
    let folder = folder("broken");
    let place = place(&folder);
    for text in ["", "{", "{}", "[1, 2]"] {
        std::fs::write(&place.journal, text).unwrap();
        let failure = restore(&place).unwrap_err().to_string();
        assert!(failure.contains("remove the file"), "{failure}");
        assert!(place.journal.exists());
    }
    std::fs::remove_dir_all(&folder).unwrap();
}
