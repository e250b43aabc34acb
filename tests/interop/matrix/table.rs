//! The rows of the matrix, and the table of them in `tests/interop/README.md`.
//!
//! A run compares its rows with those of the README; `HIGHWATER_MATRIX=write` (or `HIGHWATER_BLESS=1`) writes them
//! there instead. Each row is also left in cargo's temporary directory, whatever it says and whichever broker it is
//! about.

use std::fmt;
use std::fs;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, bail, ensure};
use highwater_record::Codec;

use super::Cell;
use crate::harness::drivers::Driver;
use crate::harness::toolbox::tests_dir;

/// What stands before the table in the README, and after it.
const BEGIN: &str = "<!-- The tests write from here: HIGHWATER_MATRIX=write -->\n";
const END: &str = "<!-- to here. -->\n";

/// What a client is asked to do.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Column {
    /// Records in this codec, sent and read back.
    Codec(Codec),
    /// Records with times of the sender's choice.
    Timestamps,
    /// Headers: several, with repeated names, without values.
    Headers,
    /// Records without a value.
    Tombstones,
    /// Empty keys and values, told from none.
    Empty,
    /// Records of 1 MiB.
    Large,
    /// Reading from an offset.
    Offset,
    /// Reading from a time.
    Time,
    /// Reading as a group, and again.
    Group,
    /// Reading what compaction left, past empty batches.
    Compacted,
    /// A group of three of which one is killed.
    Takeover,
    /// Members that join with the cooperative strategy.
    Cooperative,
    /// A static member that is killed and comes again.
    Static,
    /// An idempotent producer while the broker is killed.
    Idempotence,
    /// The admin calls.
    Admin,
}

impl Column {
    const ALL: [Self; 19] = [
        Self::Codec(Codec::None),
        Self::Codec(Codec::Gzip),
        Self::Codec(Codec::Snappy),
        Self::Codec(Codec::Lz4),
        Self::Codec(Codec::Zstd),
        Self::Timestamps,
        Self::Headers,
        Self::Tombstones,
        Self::Empty,
        Self::Large,
        Self::Offset,
        Self::Time,
        Self::Group,
        Self::Compacted,
        Self::Takeover,
        Self::Cooperative,
        Self::Static,
        Self::Idempotence,
        Self::Admin,
    ];
}

impl fmt::Display for Column {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Codec(codec) => codec.fmt(f),
            Self::Timestamps => f.write_str("times"),
            Self::Headers => f.write_str("headers"),
            Self::Tombstones => f.write_str("tombstones"),
            Self::Empty => f.write_str("empty"),
            Self::Large => f.write_str("1 MiB"),
            Self::Offset => f.write_str("by offset"),
            Self::Time => f.write_str("by time"),
            Self::Group => f.write_str("by group"),
            Self::Compacted => f.write_str("compacted"),
            Self::Takeover => f.write_str("takeover"),
            Self::Cooperative => f.write_str("cooperative"),
            Self::Static => f.write_str("static"),
            Self::Idempotence => f.write_str("idempotent"),
            Self::Admin => f.write_str("admin"),
        }
    }
}

/// A client and what came of its cells.
pub(super) struct Row {
    driver: Driver,
    version: String,
    cells: Vec<(Column, anyhow::Result<Cell>)>,
}

impl Row {
    /// An empty row of a driver in the version that it names.
    pub(super) fn new(driver: Driver, bootstrap: &str) -> anyhow::Result<Self> {
        let lines = driver.must("version", bootstrap, &[])?;
        let version = lines.first().and_then(|line| line["version"].as_str());
        let version = match driver {
            // Every distribution has its own.
            Driver::Kcat => "the distribution's".to_owned(),
            _ => version.context("a driver names its version")?.to_owned(),
        };
        Ok(Self { driver, version, cells: Vec::new() })
    }

    /// Notes what came of a cell.
    pub(super) fn fill(&mut self, column: Column, cell: anyhow::Result<Cell>) {
        self.cells.push((column, cell));
    }

    /// Leaves the row for people, fails if a cell is red, and holds a row about our broker to the committed one.
    pub(super) fn finish(&self, is_ours: bool) -> anyhow::Result<()> {
        let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join("matrix");
        fs::create_dir_all(&directory)?;
        let lines = self.lines();
        fs::write(directory.join(format!("{}.md", self.driver.name())), &lines)?;
        let red = self.cells.iter().filter_map(|(column, cell)| {
            let error = cell.as_ref().err()?;
            Some(format!("{}, {column}: {error:#}", self.driver.name()))
        });
        let red: Vec<_> = red.collect();
        ensure!(red.is_empty(), "{} cells are red:\n{}", red.len(), red.join("\n"));
        if is_ours { keep(self.driver, &lines) } else { Ok(()) }
    }

    /// The line of the table, and a line for each reason.
    fn lines(&self) -> String {
        let mut line = format!("| {} | {} |", self.driver.name(), self.version);
        let mut reasons = String::new();
        for column in Column::ALL {
            let found = self.cells.iter().find(|(other, _)| *other == column);
            line += match found {
                Some((_, Ok(Cell::Done))) => " yes |",
                Some((_, Ok(Cell::Unsupported(_)))) => " - |",
                Some((_, Err(_))) => " RED |",
                None => "  |",
            };
            if let Some((_, Ok(Cell::Unsupported(found)))) = found {
                let reason = |reason| format!("- {}, {column}: {reason}\n", self.driver.name());
                reasons.extend(found.iter().map(reason));
            }
        }
        line + "\n" + &reasons
    }
}

/// Compares the lines of a row with those in the README, or writes them there.
fn keep(driver: Driver, lines: &str) -> anyhow::Result<()> {
    // Rows are finished side by side.
    static README: Mutex<()> = Mutex::new(());
    let _turn = README.lock().unwrap_or_else(PoisonError::into_inner);
    let path = tests_dir().join("interop/README.md");
    let text = fs::read_to_string(&path).context("read the README of the matrix")?;
    let wanted = replaced(&text, driver, lines)?;
    let writes = std::env::var("HIGHWATER_MATRIX").is_ok_and(|value| value == "write");
    if writes || std::env::var_os("HIGHWATER_BLESS").is_some() {
        return fs::write(&path, wanted).context("write the README of the matrix");
    }
    if text != wanted {
        bail!("the README of the matrix is not what came of this run (HIGHWATER_MATRIX=write):\n{lines}");
    }
    Ok(())
}

/// The README with these lines for a driver.
fn replaced(text: &str, driver: Driver, lines: &str) -> anyhow::Result<String> {
    let (head, rest) = text.split_once(BEGIN).with_context(|| format!("the README has no line {BEGIN:?}"))?;
    let (table, tail) = rest.split_once(END).with_context(|| format!("the README has no line {END:?}"))?;
    let (mut rows, mut reasons) = (String::new(), String::new());
    for other in Driver::ALL {
        let source = if other == driver { lines } else { table };
        for line in source.lines() {
            let (row, reason) = (format!("| {} |", other.name()), format!("- {}, ", other.name()));
            if line.starts_with(&row) {
                rows += &format!("{line}\n");
            } else if line.starts_with(&reason) {
                reasons += &format!("{line}\n");
            }
        }
    }
    let titles: String = Column::ALL.iter().map(|column| format!(" {column} |")).collect();
    let rule = "---|".repeat(Column::ALL.len());
    Ok(format!("{head}{BEGIN}| client | version |{titles}\n|---|---|{rule}\n{rows}\n{reasons}{END}{tail}"))
}

#[test]
fn a_row_takes_its_place_among_the_others_and_alone_changes() {
    let text = format!("before\n{BEGIN}| kcat | 1 | yes |\n\n- kcat, admin: none\n{END}after\n");

    let once = replaced(&text, Driver::Java, "| java | 4 | yes |\n- java, time: none\n").unwrap();
    let again = replaced(&once, Driver::Java, "| java | 5 | yes |\n").unwrap();

    assert!(
        once.contains("| java | 4 | yes |\n| kcat | 1 | yes |\n\n- java, time: none\n- kcat, admin: none\n")
    );
    assert!(again.contains("| java | 5 | yes |\n| kcat | 1 | yes |\n\n- kcat, admin: none\n"), "{again}");
    assert!(again.starts_with("before\n") && again.ends_with("after\n"));
}
