//! An idempotent producer lives through brokers that die: each value is there once, in order.

use anyhow::{Context, ensure};
use serde_json::Value;

use super::records::Base64;
use super::{Cell, Subject, target};
use crate::harness::clients::Running;
use crate::harness::drivers::unsupported;

/// How many values are sent: more than any client has under way at once, which is librdkafka with 100,000.
const COUNT: usize = 150_000;

/// So many are acknowledged when the broker is killed for the first time, and for the second.
const KILLS_AT: [usize; 2] = [500, 30_000];

/// Kills the broker under a producer, and reads what is there in the end.
pub(super) fn idempotence(subject: &mut Subject<'_>) -> anyhow::Result<Cell> {
    let topic = subject.topic("idempotent", 1)?;
    let mut command = subject.driver.ready()?;
    command.args(["idempotent", &subject.target.bootstrap(), &format!("topic={topic}")]);
    let mut producer = Running::spawn({
        command.arg(format!("count={COUNT}"));
        command
    })?;
    let broker = subject.target.broker().context("the broker may be killed")?;
    let mut acked = 0;
    for kill_at in KILLS_AT {
        // What is not read here fills the pipe, so that the client cannot run far ahead.
        while acked < kill_at {
            let line: Value = serde_json::from_str(&producer.line()?)?;
            if let Some(reason) = unsupported(&line) {
                return Ok(Cell::Unsupported(vec![reason]));
            }
            acked += 1;
        }
        broker.kill()?;
        let there = target::records_on_disk(broker.data(), &topic)?;
        ensure!(there < COUNT, "all values were there before the broker was killed");
        broker.restart()?;
    }
    let rest = producer.finish()?;

    acked += rest.iter().filter(|byte| **byte == b'\n').count();
    ensure!(acked == COUNT, "{acked} of {COUNT} values are acknowledged");
    let stored = subject.target.stored(&topic, 1)?;
    for (expected, line) in stored.iter().enumerate() {
        let value = Base64(expected.to_string().into());
        ensure!(line.value.as_ref() == Some(&value), "{line:?} lies where value {expected} belongs");
    }
    ensure!(stored.len() == COUNT, "{} values are there, and not {COUNT}", stored.len());
    Ok(Cell::Done)
}
