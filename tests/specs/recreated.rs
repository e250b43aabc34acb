//! A topic that is created again under the name of a deleted one.

use std::io::Write;
use std::process::{Command, Stdio};

use anyhow::ensure;

use crate::harness::broker::{Broker, Options, binary};

fn highwater(broker: &Broker, arguments: &[&str], input: &str) -> anyhow::Result<String> {
    let mut command = Command::new(binary()?);
    command.args(arguments).env("HIGHWATER_BOOTSTRAP", broker.bootstrap());
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    child.stdin.take().map(|mut stdin| stdin.write_all(input.as_bytes())).transpose()?;
    let output = child.wait_with_output()?;
    ensure!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?)
}

#[test]
fn a_tombstone_that_outlives_its_topic_spares_the_next_topic_of_that_name() -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let mut broker = Broker::start(Options::new(&dir.path().join("data")))?;
    highwater(&broker, &["produce", "t"], "old\n")?;
    // Something that is not ours keeps the files from being removed, and so keeps the tombstone.
    std::fs::create_dir(broker.data().join("t-0/not ours"))?;
    highwater(&broker, &["topic", "rm", "t", "--yes"], "")?;
    highwater(&broker, &["topic", "create", "t"], "")?;
    highwater(&broker, &["produce", "t"], "new\n")?;

    broker.kill()?;
    broker.restart()?;

    assert_eq!(highwater(&broker, &["consume", "t", "-o", "start", "-e"], "")?, "new\n");
    Ok(())
}

#[test]
fn a_directory_of_an_unknown_topic_is_named_and_never_served_as_another() -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let mut broker = Broker::start(Options::new(&dir.path().join("data")))?;
    broker.terminate()?;
    let stranger = broker.data().join("t-0");
    std::fs::create_dir(&stranger)?;
    std::fs::write(stranger.join("partition.metadata"), "version: 0\ntopic_id: AQIDBAUGBwgJCgsMDQ4PEA\n")?;

    broker.restart()?;
    let refused =
        highwater(&broker, &["topic", "create", "t"], "").expect_err("the name is taken by a leftover");
    let refused = format!("{refused:#}");

    assert!(refused.contains("left over from another topic"), "{refused}");
    let log = broker.log();
    assert!(log.contains("the metadata knows no topic for this partition's directory"), "{log}");
    assert!(broker.data().join("t-0").exists());
    Ok(())
}
