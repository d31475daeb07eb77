use std::sync::mpsc::{self, Sender};

use super::*;

struct Fake(Sender<()>);

impl Station for Fake {
    fn status(&self) -> Result<Report, String> {
        Ok(Report {
            pid: 7,
            ..Report::default()
        })
    }

    fn end(&self) -> Result<(), String> {
        self.0.send(()).map_err(|error| error.to_string())
    }
}

fn path(name: &str) -> PathBuf {
    std::env::temp_dir().join(format!("ztna-control-{}-{name}", std::process::id()))
}

#[test]
fn a_station_answers_and_the_end_is_asked_for() {
    let path = path("answers");
    let (sender, asked) = mpsc::channel();
    let file = Listening::at(&path).unwrap().serve(Fake(sender)).unwrap();
    let mode = std::fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let (answer, _, pid) = ask(&path, Command::Status).unwrap().unwrap();
    assert_eq!(answer.status.unwrap().pid, 7);
    assert_eq!(pid, i32::try_from(std::process::id()).unwrap());
    let (_, stream, _) = ask(&path, Command::Down).unwrap().unwrap();
    asked.recv().unwrap();
    // The connection lives as long as the process does.
    stream.set_nonblocking(true).unwrap();
    let kind = (&stream).read(&mut [0]).unwrap_err().kind();
    assert_eq!(kind, io::ErrorKind::WouldBlock);
    // A second one does not take the socket away.
    let refused = Listening::at(&path).unwrap_err().to_string();
    assert!(refused.contains("another process answers there"), "{refused}");
    drop(file);
    assert!(!path.exists());
}

#[test]
fn nobody_there_is_no_error_and_a_leftover_gives_way() {
    let path = path("leftover");
    assert!(ask(&path, Command::Status).unwrap().is_none());
    drop(UnixListener::bind(&path).unwrap());
    assert!(path.exists());
    assert!(ask(&path, Command::Status).unwrap().is_none());
    drop(Listening::at(&path).unwrap());
    assert!(!path.exists());
    std::fs::write(&path, "mine").unwrap();
    assert!(Listening::at(&path).is_err());
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "mine");
    std::fs::remove_file(&path).unwrap();
}

#[test]
fn a_line_that_is_no_request_is_told_so() {
    let (sender, asked) = mpsc::channel();
    let station = Fake(sender);
    for line in [
        &b""[..],
        b"\xff\xff",
        b"{}",
        b"[1]",
        br#"{"version": 2, "command": "down"}"#,
        br#"{"version": 1, "command": "reboot"}"#,
    ] {
        let (answer, stays) = answer(line, &station);
        assert!(answer.error.is_some() && !stays, "{line:?}");
    }
    assert!(asked.try_recv().is_err());
}

#[test]
fn a_line_without_end_is_cut_off() {
    let (near, far) = UnixStream::pair().unwrap();
    let writer = std::thread::spawn(move || {
        // Fails once the reader has had enough.
        for _ in 0..10_000 {
            if (&far).write_all(&[b'x'; 1024]).is_err() {
                return;
            }
        }
    });
    let deadline = Instant::now() + Duration::from_secs(60);
    let error = read_line(&near, 4096, deadline).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    drop(near);
    writer.join().unwrap();
}
