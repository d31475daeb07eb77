use super::*;

struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("ztna-resolv-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn file(&self) -> PathBuf {
        self.0.join("resolv.conf")
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

const TEXT: &str =
    "# by hand\nsearch corp.example\nnameserver 192.0.2.1\nnameserver\t2001:db8::1 \noptions ndots:2\n";

fn listen() -> IpAddr {
    "10.100.255.1".parse().unwrap()
}

#[test]
fn servers_are_read_as_the_c_library_does() {
    let texts: Vec<String> = servers(TEXT).iter().map(ToString::to_string).collect();
    assert_eq!(texts, ["192.0.2.1:53", "[2001:db8::1]:53"]);
    let scoped =
        servers("nameserver fe80::1%lo\nnameserver fe80::1%nowhere0\nnameserver x\n;nameserver 1.1.1.1\n");
    assert_eq!(scoped.len(), 1);
    assert!(matches!(scoped[0], SocketAddr::V6(v6) if v6.scope_id() > 0));
    let many = "nameserver 192.0.2.1\n".repeat(5);
    assert_eq!(servers(&many).len(), 3);
}

#[test]
fn ours_names_nobody_else_and_keeps_the_rest() {
    let ours = ours(TEXT, "ztna0", listen());
    assert_eq!(owner(&ours), Some("ztna0"));
    assert_eq!(owner(TEXT), None);
    let texts: Vec<String> = servers(&ours).iter().map(ToString::to_string).collect();
    assert_eq!(texts, ["10.100.255.1:53"]);
    for line in ["search corp.example", "options ndots:2", "# nameserver 192.0.2.1"] {
        assert!(ours.lines().any(|own| own == line), "{line}");
    }
}

#[test]
fn a_file_comes_back_as_it_was() {
    let folder = Folder::new("file");
    let path = folder.file();
    std::fs::write(&path, TEXT).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
    let (original, text) = Original::read(&path).unwrap();
    write(&path, &ours(&text, "ztna0", listen()), MODE).unwrap();
    assert_eq!(servers(&std::fs::read_to_string(&path).unwrap()).len(), 1);
    // Another one's is left alone, and so is one that somebody has written since.
    assert!(!put_back(&path, &original, "ztna1").unwrap());
    assert!(put_back(&path, &original, "ztna0").unwrap());
    assert_eq!(std::fs::read_to_string(&path).unwrap(), TEXT);
    assert_eq!(
        std::fs::metadata(&path).unwrap().permissions().mode() & 0o777,
        0o640
    );
    assert!(!put_back(&path, &Original::Absent, "ztna0").unwrap());
    assert_eq!(std::fs::read_dir(&folder.0).unwrap().count(), 1);
}

#[test]
fn a_link_comes_back_as_a_link_and_what_it_leads_to_is_not_touched() {
    let folder = Folder::new("link");
    let (path, target) = (folder.file(), folder.0.join("stub.conf"));
    std::fs::write(&target, TEXT).unwrap();
    std::os::unix::fs::symlink("stub.conf", &path).unwrap();
    let (original, text) = Original::read(&path).unwrap();
    assert_eq!(text, TEXT);
    write(&path, &ours(&text, "ztna0", listen()), MODE).unwrap();
    assert_eq!(std::fs::read_to_string(&target).unwrap(), TEXT);
    assert!(put_back(&path, &original, "ztna0").unwrap());
    assert_eq!(std::fs::read_link(&path).unwrap(), Path::new("stub.conf"));
}

#[test]
fn none_is_none_again() {
    let folder = Folder::new("none");
    let path = folder.file();
    let (original, text) = Original::read(&path).unwrap();
    assert_eq!((&original, text.as_str()), (&Original::Absent, ""));
    write(&path, &ours(&text, "ztna0", listen()), MODE).unwrap();
    assert!(put_back(&path, &original, "ztna0").unwrap());
    assert!(!path.exists());
    // A link to nothing is a link all the same.
    std::os::unix::fs::symlink("nowhere", &path).unwrap();
    assert_eq!(Original::read(&path).unwrap().0, Original::Link("nowhere".into()));
}

#[test]
fn what_is_no_text_or_far_too_long_is_refused() {
    let folder = Folder::new("odd");
    std::fs::write(folder.file(), [0xff, 0xfe]).unwrap();
    assert!(Original::read(&folder.file()).is_err());
    std::fs::write(folder.file(), vec![b'#'; MAX as usize + 1]).unwrap();
    assert!(Original::read(&folder.file()).is_err());
}

#[test]
fn a_change_is_seen() {
    let folder = Folder::new("seen");
    let path = folder.file();
    let none = Seen::of(&path);
    std::fs::write(&path, TEXT).unwrap();
    let one = Seen::of(&path);
    assert_ne!(one, none);
    write(&path, TEXT, MODE).unwrap();
    assert_ne!(Seen::of(&path), one);
}
