//! `kafka-consumer-groups` shows groups, moves and deletes their offsets, and deletes them; `kafka-dump-log` reads
//! what they left in our `__consumer_offsets`.

use anyhow::{Context, ensure};

use super::{Session, has, has_line};
use crate::harness::drivers::Driver;
use crate::harness::dump_log::segment_files;
use crate::harness::kafka_tools::Tool::{ConsoleConsumer, ConsumerGroups, DumpLog, Groups};
use crate::harness::talk::Talk;
use crate::harness::wait;

const LINES: [&str; 10] = ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"];

#[test]
#[ignore = "slow; cargo xtask ci runs it"]
fn kafka_consumer_groups_shows_an_empty_group_and_deletes_it() -> anyhow::Result<()> {
    let Some(mut session) = Session::start()? else { return Ok(()) };
    let group = empty_group(&mut session, "idle")?;
    let describe = format!("--describe --group {group}");

    has_line(&session.run(ConsumerGroups, "--list")?, &group)?;
    has_row(&session.run(ConsumerGroups, "--list --state")?, &[&group, "Empty"])?;
    has_row(&session.run(ConsumerGroups, "--list --state Empty")?, &[&group, "Empty"])?;
    ensure!(!session.run(ConsumerGroups, "--list --state Stable")?.contains(&group));
    has_row(&session.run(ConsumerGroups, "--list --type")?, &[&group, "Classic"])?;
    has_row(&session.run(Groups, "--list")?, &[&group, "Classic", "consumer"])?;
    let row = [group.as_str(), &group, "0", "10", "10", "0", "-", "-", "-"];
    has_row(&session.run(ConsumerGroups, &describe)?, &row)?;
    has(&session.run(ConsumerGroups, &format!("{describe} --state"))?, " Empty ")?;
    let members = session.try_run(ConsumerGroups, &format!("{describe} --members"))?;
    has(&members.err, &format!("Consumer group '{group}' has no active members."))?;

    let delete_offsets = format!("--delete-offsets --group {group} --topic {group}:0");
    has_row(&session.run(ConsumerGroups, &delete_offsets)?, &[&group, "0", "Successful"])?;
    ensure!(!session.run(ConsumerGroups, &describe)?.contains(" 10 "), "the offset is still there");
    reset(&mut session, &group, "--to-earliest", 0)?;
    let delete = format!("--delete --group {group}");
    let deleted = format!("Deletion of requested consumer groups ('{group}') was successful.");
    has_line(&session.run(ConsumerGroups, &delete)?, &deleted)?;
    ensure!(!session.run(ConsumerGroups, "--list")?.contains(&group), "the group is still listed");
    has(&session.run(ConsumerGroups, &delete)?, "GroupIdNotFoundException")?;
    has(&session.run(ConsumerGroups, &describe)?, &format!("Group {group} not found."))
}

#[test]
#[ignore = "slow; cargo xtask ci runs it"]
fn kafka_consumer_groups_moves_a_group_to_wherever_it_is_told() -> anyhow::Result<()> {
    let Some(mut session) = Session::start()? else { return Ok(()) };
    let group = empty_group(&mut session, "moved")?;
    let file = session.file("offsets.csv", &format!("{group},0,6\n"))?;
    let from_file = format!("--from-file {}", file.display());
    let moves = [
        ("--to-earliest", 0),
        ("--to-latest", 10),
        ("--to-offset 4", 4),
        ("--to-offset 400", 10),
        ("--shift-by -3", 7),
        ("--shift-by 2", 9),
        ("--to-current", 9),
        ("--to-datetime 2020-01-01T00:00:00.000", 0),
        ("--by-duration PT0S", 10),
        ("--by-duration P1D", 0),
        (from_file.as_str(), 6),
    ];
    for (to, offset) in moves {
        reset(&mut session, &group, to, offset).with_context(|| to.to_owned())?;
    }

    let dry = format!("--reset-offsets --group {group} --topic {group}:0 --to-offset 1 --dry-run");
    has_row(&session.run(ConsumerGroups, &dry)?, &[&group, &group, "0", "1"])?;
    let describe = format!("--describe --group {group}");
    has_row(&session.run(ConsumerGroups, &describe)?, &[&group, &group, "0", "6", "10", "4", "-", "-", "-"])
}

#[test]
#[ignore = "slow; cargo xtask ci runs it"]
fn kafka_consumer_groups_shows_the_member_of_a_group_and_does_not_move_it() -> anyhow::Result<()> {
    let Some(mut session) = Session::start()? else { return Ok(()) };
    let group = empty_group(&mut session, "busy")?;
    let mut command = Driver::Java.ready()?;
    command.args([
        "group",
        &session.target.bootstrap(),
        &format!("topic={group}"),
        &format!("group={group}"),
    ]);
    let mut member = Talk::start(command)?;
    wait::until("the member to have its partition", || {
        member.check()?;
        Ok(member.said_since(0).iter().any(|said| said.line["assigned"][0] == 0))
    })?;
    let describe = format!("--describe --group {group}");

    has_row(&session.run(ConsumerGroups, "--list --state stable")?, &[&group, "Stable"])?;
    let state = session.run(ConsumerGroups, &format!("{describe} --state"))?;
    ensure!(state.contains(" range ") && state.contains(" Stable "), "{state}");
    let members = session.run(ConsumerGroups, &format!("{describe} --members --verbose"))?;
    ensure!(members.contains(&format!("{group}:0")) && members.contains("/127.0.0.1"), "{members}");
    has(&session.run(ConsumerGroups, &describe)?, "consumer-")?;
    let to = format!("--reset-offsets --group {group} --topic {group} --to-earliest --execute");
    has(&session.run(ConsumerGroups, &to)?, "can only be reset if the group")?;
    let delete = session.run(ConsumerGroups, &format!("--delete --group {group}"))?;
    has(&delete, "GroupNotEmptyException")?;
    let forget = format!("--delete-offsets --group {group} --topic {group}");
    has(&session.run(ConsumerGroups, &forget)?, "GroupSubscribedToTopicException")?;
    member.finish()
}

#[test]
#[ignore = "slow; cargo xtask ci runs it"]
fn kafka_dump_log_decodes_what_groups_left_in_our_files() -> anyhow::Result<()> {
    let Some(mut session) = Session::start()? else { return Ok(()) };
    if !session.target.is_ours() {
        return Ok(());
    }
    let group = empty_group(&mut session, "left")?;
    let data = session.directory.path().join("data");
    let mut printed = String::new();
    for entry in std::fs::read_dir(&data)? {
        let directory = entry?.path();
        let name = directory.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if name.starts_with("__consumer_offsets-") {
            for file in segment_files(&directory, &["log"])? {
                let file = file.display().to_string();
                let arguments = ["--offsets-decoder", "--deep-iteration", "--files", &file];
                printed += &session.tools.run(DumpLog, &arguments)?;
            }
        }
    }

    let offset = format!(r#"{{"type":"1","data":{{"group":"{group}","topic":"{group}","partition":0}}}}"#);
    has(&printed, &offset)?;
    has(&printed, r#""data":{"offset":10,"#)?;
    let metadata = format!(r#"{{"type":"2","data":{{"group":"{group}"}}}}"#);
    has(&printed, &metadata)?;
    has(&printed, r#""protocolType":"consumer","generation":1,"protocol":"range""#)?;
    let wrong: Vec<_> = printed.lines().filter(|line| line.contains("isvalid: false")).collect();
    ensure!(wrong.is_empty(), "{wrong:?}");
    Ok(())
}

/// A group that read ten records of a topic of the same name, and left.
fn empty_group(session: &mut Session, what: &str) -> anyhow::Result<String> {
    let name = session.create(what, 1)?;
    session.produce(&name, &LINES)?;
    let read = format!("--topic {name} --group {name} --from-beginning --max-messages 10");
    let printed = session.run(ConsoleConsumer, &read)?;
    ensure!(printed.lines().eq(LINES), "the group read {printed:?}");
    Ok(name)
}

/// Moves a group, and looks where it is.
fn reset(session: &mut Session, group: &str, to: &str, offset: i64) -> anyhow::Result<()> {
    // A file names its topics itself.
    let scope = if to.starts_with("--from-file") { String::new() } else { format!("--topic {group}") };
    let words = format!("--reset-offsets --group {group} {scope} {to} --execute");
    let offset = offset.to_string();
    has_row(&session.run(ConsumerGroups, &words)?, &[group, group, "0", &offset])?;
    let printed = session.run(ConsumerGroups, &format!("--describe --group {group}"))?;
    let lag = (10 - offset.parse::<i64>()?).to_string();
    has_row(&printed, &[group, group, "0", &offset, "10", &lag, "-", "-", "-"])
}

/// Fails unless a line consists of these words.
fn has_row(printed: &str, words: &[&str]) -> anyhow::Result<()> {
    let is_row = |line: &str| line.split_whitespace().eq(words.iter().copied());
    ensure!(printed.lines().any(is_row), "no row {words:?} in:\n{printed}");
    Ok(())
}
