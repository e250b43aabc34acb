//! Committed offsets: who may commit, what is refused, and what survives.

use anyhow::ensure;
use highwater_protocol::api::offset_delete::{OffsetDeleteRequestPartition, OffsetDeleteRequestTopic};
use highwater_protocol::api::{DeleteGroupsRequest, OffsetDeleteRequest};

use super::member::Member;
use super::{TOPIC, served};
use crate::faults::client::name_of;
use crate::harness::served::Served;
use crate::harness::wire::create_topic;

#[test]
fn a_client_outside_of_any_group_commits_to_one_without_members() -> anyhow::Result<()> {
    let served = served()?;
    let mut simple = Member::connect(served.address(), "group")?;
    assert_eq!(simple.commit(TOPIC, 0, 3)?, "NONE");
    assert_eq!(simple.committed(TOPIC, 0)?.0, 3);

    Member::connect(served.address(), "group")?.settle_alone()?;

    assert_eq!(simple.commit(TOPIC, 0, 4)?, "UNKNOWN_MEMBER_ID");
    assert_eq!(simple.committed(TOPIC, 0)?.0, 3);
    Ok(())
}

#[test]
fn what_cannot_be_committed_is_refused_partition_by_partition() -> anyhow::Result<()> {
    let served = served()?;
    let mut simple = Member::connect(served.address(), "group")?;

    assert_eq!(simple.commit("no-such-topic", 0, 1)?, "UNKNOWN_TOPIC_OR_PARTITION");
    assert_eq!(simple.commit(TOPIC, 3, 1)?, "UNKNOWN_TOPIC_OR_PARTITION");
    let note = "x".repeat(4_097);
    assert_eq!(simple.commit_with(9, (TOPIC, 0), 1, Some(&note))?, "OFFSET_METADATA_TOO_LARGE");
    assert_eq!(simple.commit_with(9, (TOPIC, 0), 1, Some(&note[1..]))?, "NONE");
    simple.generation = 5;
    assert_eq!(simple.commit(TOPIC, 0, 2)?, "UNKNOWN_MEMBER_ID");

    assert_eq!(simple.committed(TOPIC, 0)?.0, 1);
    assert_eq!(simple.all_committed()?.len(), 1);
    Ok(())
}

#[test]
fn commits_survive_a_kill_and_a_restart() -> anyhow::Result<()> {
    let mut served = served()?;
    for offset in 0..100 {
        let mut simple = Member::connect(served.address(), &format!("group-{}", offset % 10))?;
        ensure!(simple.commit(TOPIC, (offset % 3) as i32, offset)? == "NONE");
    }

    served.kill()?;
    let check = |served: &Served| -> anyhow::Result<()> {
        for group in 0..10 {
            let mut simple = Member::connect(served.address(), &format!("group-{group}"))?;
            for partition in 0..3 {
                let last = (0..100).rev().find(|offset| offset % 10 == group && offset % 3 == partition);
                assert_eq!(simple.committed(TOPIC, partition as i32)?.0, last.expect("each has one"));
            }
        }
        Ok(())
    };
    check(&served)?;
    served.restart()?;

    check(&served)
}

#[test]
fn a_topic_made_again_has_none_of_the_old_commits() -> anyhow::Result<()> {
    let mut served = served()?;
    create_topic(served.address(), "kept", 1)?;
    for group in ["one", "two", "three"] {
        let mut simple = Member::connect(served.address(), group)?;
        ensure!(simple.commit(TOPIC, 0, 7)? == "NONE" && simple.commit("kept", 0, 8)? == "NONE");
    }
    assert_eq!(served.metric("highwater_group_offsets")?, 6);

    served.connect()?.delete_topic(TOPIC)?;

    assert_eq!(served.metric("highwater_group_offsets")?, 3);
    let mut simple = Member::connect(served.address(), "one")?;
    assert_eq!(simple.committed(TOPIC, 0)?.0, -1);
    create_topic(served.address(), TOPIC, 3)?;
    assert_eq!(simple.committed(TOPIC, 0)?.0, -1);
    served.kill()?;
    let mut simple = Member::connect(served.address(), "one")?;
    assert_eq!((simple.committed(TOPIC, 0)?.0, simple.committed("kept", 0)?.0), (-1, 8));
    assert_eq!(simple.all_committed()?.len(), 1);
    Ok(())
}

#[test]
fn deleted_offsets_and_deleted_groups_stay_deleted() -> anyhow::Result<()> {
    let mut served = served()?;
    let mut simple = Member::connect(served.address(), "group")?;
    ensure!(simple.commit(TOPIC, 0, 7)? == "NONE" && simple.commit(TOPIC, 1, 8)? == "NONE");
    let mut other = Member::connect(served.address(), "other")?;
    ensure!(other.commit(TOPIC, 0, 9)? == "NONE");

    let partitions = [0, 9].map(|partition_index| OffsetDeleteRequestPartition { partition_index }).to_vec();
    let topics = vec![OffsetDeleteRequestTopic { name: TOPIC.into(), partitions }];
    let response = simple.connection.call(0, &OffsetDeleteRequest { group_id: "group".into(), topics })?;
    let codes: Vec<_> = response.topics[0].partitions.iter().map(|one| name_of(one.error_code)).collect();
    assert_eq!(codes, ["NONE", "UNKNOWN_TOPIC_OR_PARTITION"]);
    let groups_names = vec!["other".into(), "no-such-group".into()];
    let response = simple.connection.call(2, &DeleteGroupsRequest { groups_names })?;
    let codes: Vec<_> = response.results.iter().map(|one| name_of(one.error_code)).collect();
    assert_eq!(codes, ["NONE", "GROUP_ID_NOT_FOUND"]);

    served.kill()?;
    let mut simple = Member::connect(served.address(), "group")?;
    assert_eq!((simple.committed(TOPIC, 0)?.0, simple.committed(TOPIC, 1)?.0), (-1, 8));
    assert!(Member::connect(served.address(), "other")?.all_committed()?.is_empty());
    Ok(())
}
