//! What `segment verify` can find: one enum of kinds with their stable names, and a fault as a row.
//!
//! The names are a contract with scripts: they are added to, never changed. Knows no files and how nothing is found.

use std::path::{Path, PathBuf};

use highwater_record::Offset;
use serde_json::{Value, json};

/// How bad something is.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) enum Severity {
    /// Worth knowing; nothing is wrong.
    Note,
    /// Nothing is lost, and it should not be so.
    Warning,
    /// A file is damaged or contradicts another. The exit code is 3.
    Error,
}

impl Severity {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Note => "note",
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }
}

/// Declares the kinds: variant, stable name, severity, meaning.
macro_rules! kinds {
    ($($kind:ident, $name:literal, $severity:ident, $meaning:literal;)*) => {
        /// What kind of fault it is.
        #[derive(Clone, Copy, Debug, Eq, PartialEq)]
        pub(super) enum Kind {
            $(#[doc = $meaning] $kind,)*
        }

        impl Kind {
            /// The stable name.
            pub(super) const fn name(self) -> &'static str {
                match self { $(Self::$kind => $name,)* }
            }

            /// How bad it is if nothing excuses it.
            pub(super) const fn severity(self) -> Severity {
                match self { $(Self::$kind => Severity::$severity,)* }
            }
        }

        /// The kinds as a table for `--help`.
        pub(super) const KINDS: &str = concat!(
            "Kinds of faults (a severity may be lower where something excuses it):\n",
            $("  ", $name, " (", stringify!($severity), "): ", $meaning, "\n",)*
        );
    };
}

kinds! {
    BadCrc, "bad-crc", Error, "the checksum of a batch does not fit its bytes";
    BadHeader, "bad-header", Error, "bytes are not the batch that should be there";
    BadOffset, "bad-offset", Error, "the base offset of a batch does not follow the batch before";
    BadEpoch, "bad-epoch", Error, "the leader epoch of a batch is out of order with its neighbours";
    BadRecords, "bad-records", Error, "the records in a batch do not decode or are not what its header says (--deep)";
    TornTail, "torn-tail", Error, "the last batch is cut by the end of the file";
    ZeroTail, "zero-tail", Warning, "zeros up to the end of the file; a note where the file is preallocated";
    UnstableTail, "unstable-tail", Note, "a broker is appending: what is at the tail may still change";
    OffsetGap, "offset-gap", Error, "offsets are missing; a note where the topic is compacted";
    Overlap, "overlap", Warning, "batches at the end of a segment belong to the next one; brokers ignore them";
    WrongName, "wrong-name", Error, "a segment is not named by the offset it begins with";
    MissingTail, "missing-tail", Error, "a checkpoint says that the log was longer";
    BadIndex, "bad-index", Error, "an .index entry does not lead to the batch it names";
    BadTimeIndex, "bad-time-index", Error, "a .timeindex entry does not agree with the batch it names";
    BadTxnIndex, "bad-txn-index", Error, "a .txnindex entry does not agree with the markers";
    MissingIndex, "missing-index", Note, "a segment has no index; the broker makes one";
    OrphanIndex, "orphan-index", Warning, "an index whose segment is not there";
    EpochMismatch, "epoch-mismatch", Error, "leader-epoch-checkpoint contradicts the batches";
    BadSidecar, "bad-sidecar", Error, "a small file beside the segments does not hold together";
    StaleSidecar, "stale-sidecar", Error, "a small file beside the segments contradicts them";
    Leftover, "leftover", Note, "a file that a broker left behind and removes or nobody needs";
    ForeignFile, "foreign-file", Warning, "a file that no broker made";
    Unreadable, "unreadable", Error, "the disk does not give the bytes";
    More, "more-faults", Error, "so many faults in one file that the rest is only counted";
}

/// Something that is not as it should be.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Fault {
    pub(super) kind: Kind,
    pub(super) severity: Severity,
    pub(super) file: PathBuf,
    /// Byte in the file, if it is about one.
    pub(super) position: Option<u64>,
    /// Offsets that are lost, missing or meant: the first, and the one after the last.
    pub(super) offsets: Option<(Offset, Offset)>,
    /// A sentence.
    pub(super) what: String,
    /// The command that fixes it, if there is one.
    pub(super) fix: Option<String>,
}

impl Fault {
    /// A file that nobody here knows.
    pub(super) fn foreign(path: &Path) -> Self {
        Self::new(Kind::ForeignFile, path, "no broker makes such a file")
    }

    pub(super) fn new(kind: Kind, file: &Path, what: impl Into<String>) -> Self {
        let (severity, file, what) = (kind.severity(), file.to_owned(), what.into());
        Self { kind, severity, file, position: None, offsets: None, what, fix: None }
    }

    pub(super) const fn at(mut self, position: u64) -> Self {
        self.position = Some(position);
        self
    }

    pub(super) const fn of(mut self, from: Offset, to: Offset) -> Self {
        self.offsets = Some((from, to));
        self
    }

    pub(super) const fn with_severity(mut self, severity: Severity) -> Self {
        self.severity = severity;
        self
    }

    pub(super) fn fixed_by(mut self, fix: impl Into<String>) -> Self {
        self.fix = Some(fix.into());
        self
    }

    /// The cells of [`COLUMNS`].
    pub(super) fn row(&self) -> Vec<Value> {
        vec![
            json!(self.severity.name()),
            json!(self.kind.name()),
            json!(self.file.display().to_string()),
            json!(self.position),
            json!(self.offsets.map(|offsets| offsets.0.get())),
            json!(self.offsets.map(|offsets| offsets.1.get())),
            json!(self.what),
            json!(self.fix),
        ]
    }
}

/// The columns of a fault's row.
pub(super) const COLUMNS: &[&str] =
    &["severity", "kind", "file", "position", "offset_from", "offset_to", "what", "fix"];

/// A path as a shell takes it.
pub(super) fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "/._-+=:@%,".contains(c);
    if !text.is_empty() && text.chars().all(is_plain) {
        text
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}

/// The command that takes what is good out of a damaged segment.
pub(super) fn repair(path: &Path) -> String {
    format!("highwater segment repair {} --in-place --yes", quoted(path))
}

/// The command that makes the indexes of a partition anew.
pub(super) fn rebuild(log: &Path) -> String {
    format!(
        "highwater segment repair {} --rebuild-indexes --in-place --yes",
        quoted(log.parent().unwrap_or(log))
    )
}
