//! Every command explains itself, by examples first.

use anyhow::ensure;

use super::session::Session;

const COMMANDS: &[&str] = &[
    "",
    "serve",
    "produce",
    "consume",
    "topic",
    "topic ls",
    "topic create",
    "topic describe",
    "topic rm",
    "group",
    "group ls",
    "group describe",
    "group seek",
    "group rm",
    "segment",
    "segment ls",
    "segment info",
    "segment verify",
    "segment cat",
    "segment grep",
    "segment repair",
    "segment diff",
    "segment explain",
];

#[test]
fn every_help_opens_with_examples_of_its_command() -> anyhow::Result<()> {
    let session = Session::start()?;

    for command in COMMANDS {
        let help = session.succeeds(&format!("highwater {command} --help"))?;

        let examples = help.text()?.strip_prefix("Examples:\n");
        let first = examples.and_then(|examples| examples.lines().next()).unwrap_or_default();
        ensure!(
            first.contains("highwater") && first.contains(command),
            "the help of {command:?} opens with:\n{:.300}",
            help.text()?
        );
    }
    Ok(())
}

#[test]
fn the_example_that_creates_a_topic_works_as_it_stands() -> anyhow::Result<()> {
    let session = Session::start()?;
    let help = session.succeeds("highwater topic create --help")?;
    let examples: Vec<&str> = help
        .text()?
        .lines()
        .map(str::trim)
        .filter(|line| line.starts_with("highwater topic create"))
        .collect();

    for example in &examples {
        session.succeeds(example)?;
    }

    assert!(!examples.is_empty());
    Ok(())
}
