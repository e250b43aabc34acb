//! Transcripts: a script goes in, what the machine does comes out, and each is a text file that reads like a story.
//!
//! A file in `scripts/` has comments (`#`), events (`>`) and what each caused (two spaces). `script` says which
//! events there are. `HIGHWATER_BLESS=1` writes what the events cause now; the difference is to be reviewed.

mod events;
mod script;

use std::fs;
use std::path::PathBuf;

fn scripts() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/transcripts/scripts")
}

#[track_caller]
fn check(name: &str) {
    let path = scripts().join(name).with_extension("txt");
    let expected = fs::read_to_string(&path).expect("a script");
    let found = script::run(&expected);
    if std::env::var_os("HIGHWATER_BLESS").is_some() {
        fs::write(&path, &found).expect("write the transcript");
        return;
    }
    let mut lines = expected.lines().zip(found.lines()).enumerate();
    if let Some((index, (expected, found))) = lines.find(|(_, (expected, found))| expected != found) {
        panic!("{name}.txt:{}\n  expected {expected}\n  found    {found}", index + 1);
    }
    assert_eq!(expected, found, "one of the two goes on");
}

/// The first few go through every kind of call; Miri, which takes seconds for each, has those alone.
macro_rules! transcripts {
    ($($first:ident)*; $($name:ident)*) => {
        $(#[test]
        fn $first() {
            check(stringify!($first));
        })*

        $(#[test]
        #[cfg_attr(miri, ignore = "Miri takes seconds for each of these, and runs one of each kind")]
        fn $name() {
            check(stringify!($name));
        })*

        const NAMES: &[&str] = &[$(stringify!($first),)* $(stringify!($name)),*];
    };
}

transcripts! {
    a_first_member_waits_for_others
    cooperative_members_are_kept_over_two_rebalances
    a_static_member_takes_over_without_a_rebalance
    a_sync_is_checked
    a_silent_member_is_dropped
    members_leave_together
    members_commit_in_their_generation
    offsets_of_topics_that_no_member_reads_expire
    groups_without_members_can_be_deleted
    groups_are_described
    members_go_on_after_a_restart
    ;
    members_that_arrive_extend_the_initial_delay
    a_member_without_id_must_come_back_with_one
    old_versions_join_at_once
    an_id_that_nobody_comes_back_with_expires
    an_id_that_was_given_out_outlives_the_search_for_old_offsets
    the_protocol_with_the_most_votes_wins
    the_leader_decides_between_equal_votes
    a_member_without_a_common_protocol_is_refused
    a_member_of_another_protocol_type_is_refused
    session_timeouts_have_bounds
    a_group_needs_a_name
    a_full_group_turns_members_away
    ids_that_are_given_out_are_limited_too
    a_member_may_not_bring_too_much
    the_host_may_have_no_room_for_more_groups
    the_host_may_have_no_room_for_what_members_bring
    an_id_that_the_group_does_not_know_is_refused
    a_follower_that_repeats_its_join_gets_the_same_generation
    a_leader_that_joins_again_asks_for_a_rebalance
    a_member_with_other_metadata_makes_the_group_rebalance
    a_repeated_join_takes_the_place_of_the_parked_one
    laggards_are_dropped_at_the_rebalance_timeout
    a_new_member_is_not_kept_for_ever
    a_new_member_that_asks_again_has_its_time_again
    the_process_that_was_taken_over_from_is_fenced
    a_static_leader_that_takes_over_assigns_nothing
    a_static_member_with_other_topics_makes_the_group_rebalance
    a_static_member_that_changes_the_vote_makes_the_group_rebalance
    a_static_member_that_takes_over_fences_the_one_that_waits
    a_static_member_that_takes_over_in_the_sync_phase_begins_it_anew
    a_static_member_that_takes_over_may_sync_for_the_old_one
    a_static_member_that_takes_over_waits_like_others
    a_static_member_is_kept_at_the_rebalance_timeout
    a_group_of_absent_static_members_waits_for_their_sessions
    a_static_member_comes_back_while_the_group_rebalances
    followers_wait_for_the_leader
    a_sync_of_a_stable_group_is_answered_at_once
    members_that_never_sync_are_dropped
    a_leader_that_never_syncs_is_dropped
    a_join_in_the_sync_phase_sends_those_back_who_wait
    an_assignment_that_the_log_cannot_hold_is_refused
    heartbeats_answer_by_the_state_of_the_group
    a_rebalance_that_completed_early_is_over
    commits_keep_a_member_alive
    a_member_that_waits_is_not_silent
    a_leader_that_dies_in_the_sync_phase_is_replaced
    the_last_member_leaves
    an_administrator_removes_a_static_member_by_its_name
    a_member_that_never_came_back_with_its_id_leaves
    members_that_wait_may_be_removed
    a_ghost_is_dropped
    a_group_of_ghosts_is_empty_again
    a_known_member_whose_connection_closed_has_its_session_timeout
    a_follower_whose_connection_closed_asks_again
    offsets_are_committed_without_membership_to_empty_groups_only
    a_commit_to_a_group_that_does_not_exist_needs_no_generation
    epoch_and_metadata_are_kept_as_given
    an_offset_of_another_topic_id_is_absent
    offsets_expire_seven_days_after_the_group_is_empty
    offsets_without_members_expire_seven_days_after_their_commit
    old_clients_say_how_long_to_keep_an_offset
    deleting_a_group_forgets_ids_that_were_given_out
    offsets_of_topics_that_members_read_cannot_be_deleted
    before_the_first_generation_members_read_every_topic
    offsets_are_dropped_with_their_topic
    groups_are_listed_by_state_and_type
    a_rebalance_that_a_restart_cuts_short_begins_again
    an_empty_group_keeps_its_generation_over_a_restart
    a_group_that_is_too_large_after_a_restart_rebalances
}

#[test]
fn every_script_is_run() {
    let files = fs::read_dir(scripts()).unwrap();
    let mut names: Vec<String> =
        files.map(|file| file.unwrap().path().file_stem().unwrap().to_string_lossy().into_owned()).collect();
    names.sort_unstable();
    let mut listed = NAMES.to_vec();
    listed.sort_unstable();

    assert_eq!(names, listed);
}
