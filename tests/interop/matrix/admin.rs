//! A client's admin calls, step by step; the driver looks at each answer itself.

use anyhow::{Context, ensure};

use super::{Cell, Subject};
use crate::harness::drivers::Answer;

/// The steps, in their order.
pub(super) const STEPS: [&str; 18] = [
    "create",
    "exists",
    "list",
    "describe",
    "describe_configs",
    "alter_configs",
    "create_partitions",
    "produce",
    "list_offsets",
    "delete_records",
    "commit",
    "list_groups",
    "describe_group",
    "list_group_offsets",
    "delete_group_offsets",
    "delete_group",
    "describe_cluster",
    "delete_topic",
];

/// Takes every step that the library has a call for.
pub(super) fn admin(subject: &Subject<'_>) -> anyhow::Result<Cell> {
    let topic = format!("topic={}", subject.target.name("admin"));
    let lines = match subject.driver.run("admin", &subject.target.bootstrap(), &[&topic])? {
        Answer::Done(lines) => lines,
        Answer::Unsupported(reason) => return Ok(Cell::Unsupported(vec![reason])),
    };

    let names: Vec<_> = lines.iter().filter_map(|line| line["step"].as_str()).collect();
    ensure!(names == STEPS, "the driver took the steps {names:?}");
    let mut reasons = Vec::new();
    for line in &lines {
        if line["ok"].as_bool() != Some(true) {
            let reason = line["unsupported"].as_str().context("a step is taken, or cannot be")?;
            reasons.push(format!("{}: {reason}", line["step"].as_str().unwrap_or_default()));
        }
    }
    Ok(if reasons.is_empty() { Cell::Done } else { Cell::Unsupported(reasons) })
}
