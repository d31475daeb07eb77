use super::{Reader, Tally};

fn read(lines: &[&str]) -> Tally {
    let mut reader = Reader::default();
    for line in lines {
        reader.line(line);
    }
    reader.finish()
}

#[test]
fn result_lines_are_added_up_and_others_are_not_read() {
    let tally = read(&[
        "running 12 tests",
        "test wire::tests::round_trip ... ok",
        "test result: FAILED. 12 passed; 3 failed; 1 ignored; 0 measured; 9 filtered out; finished in 0.12s",
        "test result: ok. 2 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s",
    ]);
    assert_eq!(
        tally,
        Tally {
            passed: 14,
            failed: 3,
            skipped: 1
        }
    );
}

#[test]
fn a_test_that_says_it_was_skipped_did_not_pass() {
    let tally = read(&[
        "SKIPPED: no /dev/net/tun",
        "test result: ok. 2 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s",
    ]);
    assert_eq!(
        tally,
        Tally {
            passed: 1,
            failed: 0,
            skipped: 1
        }
    );
}

#[test]
fn the_last_line_is_the_one_that_is_counted() {
    assert_eq!(
        (Tally {
            passed: 3,
            failed: 0,
            skipped: 2
        })
        .to_string(),
        "3 passed, 0 failed, 2 skipped"
    );
}
