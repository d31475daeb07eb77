use std::time::Instant;

use super::*;

/// Long enough for any machine; nobody waits for it to pass.
const PATIENCE: Duration = Duration::from_secs(20);

struct Site {
    directory: PathBuf,
    tries: Receiver<String>,
    reload: Reload,
}

/// A watched file whose content is what an attempt reports.
fn watched(name: &str) -> Site {
    let directory = std::env::temp_dir().join(format!("ztna-reload-{}-{name}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    let file = directory.join("c.json");
    std::fs::write(&file, "first").unwrap();
    let (sender, tries) = mpsc::channel();
    let path = file.clone();
    let attempt = move || {
        let content = std::fs::read_to_string(&path).unwrap_or_default();
        sender.send(content.clone()).unwrap();
        if content == "bad" {
            return Err(SettingsError::new("c.json", "bad", "write it well"));
        }
        Ok(content)
    };
    let reload = Reload::start(Some(file), Box::new(attempt));
    Site {
        directory,
        tries,
        reload,
    }
}

impl Site {
    /// Replaces the file by renaming another over it, as editors and configuration tools do.
    fn put(&self, content: &str) {
        let next = self.directory.join("next");
        std::fs::write(&next, content).unwrap();
        std::fs::rename(&next, self.directory.join("c.json")).unwrap();
    }

    fn expect(&self, content: &str) {
        assert_eq!(self.tries.recv_timeout(PATIENCE).as_deref(), Ok(content));
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

#[test]
fn another_content_is_noticed_however_it_came_and_a_bad_one_does_not_end_the_watch() {
    let site = watched("content");
    site.put("second");
    site.expect("second");
    site.put("bad");
    site.expect("bad");
    // The way of Kubernetes: a link to a directory that is replaced.
    let real = site.directory.join("data");
    std::fs::create_dir_all(&real).unwrap();
    std::fs::write(real.join("c.json"), "third").unwrap();
    let link = site.directory.join("link");
    std::os::unix::fs::symlink(real.join("c.json"), &link).unwrap();
    std::fs::rename(&link, site.directory.join("c.json")).unwrap();
    site.expect("third");
    // Asked for, it happens also without a change.
    site.reload.wanted();
    site.expect("third");
    assert!(site.tries.try_recv().is_err(), "once for each");
}

#[test]
fn the_watch_ends_with_the_last_who_could_ask() {
    let Site { tries, reload, .. } = &watched("end");
    let (sender, wanted) = mpsc::sync_channel::<()>(1);
    drop(sender);
    let start = Instant::now();
    watch(None, None, &wanted, Box::new(|| Ok(String::new())));
    assert!(start.elapsed() < PATIENCE);
    reload.wanted();
    assert!(tries.recv_timeout(PATIENCE).is_ok());
}
