//! The fuzz targets on a stable compiler: the committed corpus, and a fixed number of changed copies of it.

use std::path::{Path, PathBuf};

use proto_core::rng::{Rng, Seed};
use proto_core::sim::fuzz::{self, Target};

/// How many changed inputs each target gets, whatever the size of its corpus.
const MUTATED: usize = 300;

fn corpus(name: &str) -> Vec<Vec<u8>> {
    let folder: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../fuzz/corpus")
        .join(name);
    let entries = std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut files: Vec<PathBuf> = entries
        .map(|entry| entry.expect("a readable folder").path())
        .collect();
    files.sort();
    assert!(
        files.len() >= 10,
        "{} holds only {} files",
        folder.display(),
        files.len()
    );
    files
        .iter()
        .map(|file| std::fs::read(file).expect("a readable file"))
        .collect()
}

fn replay(name: &str) {
    let (_, target): (_, Target) = fuzz::TARGETS
        .into_iter()
        .find(|(target, _)| *target == name)
        .expect("a target of this name");
    let corpus = corpus(name);
    for input in &corpus {
        target(input);
    }
    let mut rng = Rng::new(&Seed([1; 32]));
    for number in 0..MUTATED {
        let input = fuzz::mutate(&corpus[number % corpus.len()], &mut rng);
        let panicked = std::panic::catch_unwind(|| target(&input)).is_err();
        assert!(!panicked, "{name} fails for {input:02x?}");
    }
}

macro_rules! replay {
    ($($name:ident)*) => {
        $(
            #[test]
            fn $name() {
                replay(stringify!($name));
            }
        )*

        #[test]
        fn every_target_is_replayed() {
            let replayed = [$(stringify!($name)),*];
            assert!(fuzz::TARGETS.iter().all(|(name, _)| replayed.contains(name)));
        }
    };
}

replay!(agent connector datagram encounter intermediate netstack packet signaling socks world);
