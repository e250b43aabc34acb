//! Where reading starts and what is told when the damage is not right where it was asked for.

use std::fs;

use super::{Partition, cat, cat_with, span};

#[test]
fn damage_before_what_is_wanted_is_not_in_the_way() {
    let partition = Partition::new();
    partition.break_header(0, 2);

    // The index leads to the batch before.
    assert_eq!(cat(&partition.path(), "30:35"), (span(30, 35), 0));
    assert_eq!(cat(&partition.path(), "25:35"), (span(0, 0), 1));
}

#[test]
fn a_time_that_may_be_in_what_is_damaged_is_not_looked_for_behind_it_in_silence() {
    for is_header in [true, false] {
        let partition = Partition::new();
        match is_header {
            true => partition.break_header(50, 4),
            false => partition.change(50, "log", |bytes| *bytes.last_mut().unwrap() ^= 1),
        }
        assert_eq!(cat(&partition.path(), "s@95"), (span(0, 0), 1));
        assert_eq!(cat(&partition.path(), "s@85"), (span(85, 90), 1));

        let partition = Partition::new();
        match is_header {
            true => partition.break_header(0, 2),
            false => partition.change(0, "log", |bytes| *bytes.last_mut().unwrap() ^= 1),
        }
        let lost = if is_header { 20 } else { 40 };
        let time = format!("s@{}", lost + 5);
        assert_eq!(cat(&partition.path(), &time), (span(0, 0), 1));
        let skipping = cat_with(&partition.path(), &["-o", &time, "--skip-damaged"]);
        assert_eq!(skipping, (span(lost + 10, 100), 1));
        let until = cat_with(&partition.path(), &["-o", &format!("e@{}", lost + 20), "--skip-damaged"]);
        assert_eq!(until, (span(0, lost).into_iter().chain(span(lost + 10, lost + 20)).collect(), 1));
    }
}

#[test]
fn beside_a_broker_only_the_last_batch_may_be_unfinished() {
    let partition = Partition::new();
    let lock = fs::File::create(partition.data.path().join("LOCK")).unwrap();
    lock.try_lock().unwrap();

    partition.change(50, "log", |bytes| *bytes.last_mut().unwrap() ^= 1);
    assert_eq!(cat(&partition.path(), "start"), (span(0, 90), 0));
    partition.change(50, "log", |bytes| bytes.truncate(bytes.len() - 2));
    assert_eq!(cat(&partition.path(), "start"), (span(0, 90), 0));

    partition.change(50, "log", |bytes| bytes[70] ^= 1);
    assert_eq!(cat(&partition.path(), "start"), (span(0, 50), 1));
    assert_eq!(
        cat_with(&partition.path(), &["--skip-damaged"]),
        (span(0, 50).into_iter().chain(span(60, 90)).collect(), 1)
    );
}
