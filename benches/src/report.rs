//! What a bench says: progress on stderr, one markdown table on stdout, ready for `README.md`.

use std::fmt::Display;
use std::fs;
use std::io::{self, Write};
use std::time::Duration;

use comfy_table::{Table, presets};

/// A table in markdown.
pub(crate) fn table<const N: usize>(
    header: [&str; N],
    rows: impl IntoIterator<Item = [String; N]>,
) -> String {
    let mut table = Table::new();
    table.load_style(presets::ASCII_MARKDOWN).set_header(header);
    for row in rows {
        table.add_row(row);
    }
    table.to_string()
}

/// Says on stderr what is going on. A closed stderr is no reason to stop measuring.
pub(crate) fn progress(message: impl Display) {
    drop(writeln!(io::stderr(), "{message}"));
}

/// The machine, for beside the figures: cores, processor, kernel, load before the run.
pub(crate) fn machine() -> String {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let processor = read("/proc/cpuinfo");
    let processor = processor
        .lines()
        .find_map(|line| line.strip_prefix("model name"))
        .map_or("unknown processor", |rest| rest.trim_start_matches([' ', '\t', ':']));
    let kernel = read("/proc/sys/kernel/osrelease");
    let load = read("/proc/loadavg");
    let load: Vec<_> = load.split_whitespace().take(3).collect();
    format!("{cores} x {processor}, kernel {}, load before {}", kernel.trim(), load.join(" "))
}

/// A duration in the unit that people compare acknowledgements in.
pub(crate) fn microseconds(duration: Option<Duration>) -> String {
    duration.map_or_else(|| "-".to_owned(), |duration| format!("{} us", duration.as_micros()))
}
