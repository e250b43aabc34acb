//! What `segment grep` looks for: a pattern in the keys, values and headers of records.
//!
//! Where a pattern matches a part of a record it matches the bytes of the whole batch as well, unless it looks at what
//! stands around it. So a second pattern, without those looks, tells of a batch that no record of it matches, at the
//! speed of a search in plain memory. It never misses; what it finds is looked at record by record.

use anyhow::Result;
use highwater_record::Record;
use regex::bytes::{Regex, RegexBuilder};
use regex_syntax::ParserBuilder;
use regex_syntax::hir::{Hir, HirKind, Repetition};

use crate::failure::Failure;

/// A part of a record.
#[derive(Clone, Copy, Debug, Eq, PartialEq, clap::ValueEnum)]
pub(super) enum Part {
    /// Its key
    Key,
    /// Its value
    Value,
    /// Names and values of its headers
    Headers,
}

/// How a pattern is meant.
#[derive(Clone, Debug, Default)]
pub(super) struct Meaning {
    /// The pattern is text.
    pub(super) is_literal: bool,
    /// Case does not matter.
    pub(super) ignores_case: bool,
    /// Records that do not match are wanted.
    pub(super) is_inverted: bool,
}

/// A pattern and where it is looked for.
#[derive(Clone, Debug)]
pub(super) struct Matcher {
    pattern: Regex,
    /// Matches every batch that has a record which `pattern` matches; none if no such pattern is known.
    anywhere: Option<Regex>,
    parts: Vec<Part>,
    is_inverted: bool,
}

impl Matcher {
    /// Reads a pattern.
    pub(super) fn new(text: &str, meaning: &Meaning, parts: &[Part]) -> Result<Self> {
        let text = if meaning.is_literal { regex::escape(text) } else { text.to_owned() };
        let build = |text: &str| RegexBuilder::new(text).case_insensitive(meaning.ignores_case).build();
        let pattern = build(&text).map_err(|error| Failure::usage(error.to_string()))?;
        let parsed =
            ParserBuilder::new().utf8(false).case_insensitive(meaning.ignores_case).build().parse(&text);
        let anywhere = match parsed {
            Ok(hir) if hir.properties().look_set().is_empty() => Some(pattern.clone()),
            // What is printed has the meaning of its flags in it.
            Ok(hir) => Regex::new(&without_looks(&hir).to_string()).ok(),
            Err(_) => None,
        };
        let anywhere = anywhere.filter(|_| !meaning.is_inverted);
        Ok(Self { pattern, anywhere, parts: parts.to_vec(), is_inverted: meaning.is_inverted })
    }

    /// Whether a record among these bytes may be wanted.
    pub(super) fn may_match(&self, records: &[u8]) -> bool {
        self.anywhere.as_ref().is_none_or(|pattern| pattern.is_match(records))
    }

    /// Whether a record is wanted.
    pub(super) fn matches(&self, record: &Record<'_>) -> bool {
        let is_in = |bytes: Option<&[u8]>| bytes.is_some_and(|bytes| self.pattern.is_match(bytes));
        let matches = self.parts.iter().any(|part| match part {
            Part::Key => is_in(record.key),
            Part::Value => is_in(record.value),
            Part::Headers => record.headers.clone().any(|(name, value)| is_in(Some(name)) || is_in(value)),
        });
        matches != self.is_inverted
    }
}

/// The same with every anchor and word boundary left out: it matches wherever the original does, and in more places.
fn without_looks(hir: &Hir) -> Hir {
    match hir.kind() {
        HirKind::Look(_) => Hir::empty(),
        HirKind::Repetition(repetition) => {
            let sub = Box::new(without_looks(&repetition.sub));
            Hir::repetition(Repetition { sub, ..repetition.clone() })
        }
        HirKind::Capture(capture) => without_looks(&capture.sub),
        HirKind::Concat(all) => Hir::concat(all.iter().map(without_looks).collect()),
        HirKind::Alternation(all) => Hir::alternation(all.iter().map(without_looks).collect()),
        HirKind::Empty | HirKind::Literal(_) | HirKind::Class(_) => hir.clone(),
    }
}

#[cfg(test)]
mod tests {
    use highwater_record::{Batch, BatchBuilder, Codec, NewRecord, TimestampMs};
    use proptest::collection::vec;
    use proptest::prelude::*;
    use proptest::sample::select;

    use super::*;

    /// What patterns are made of.
    const PIECES: &[&str] = &[
        "a",
        "b",
        ".",
        "[^a]",
        "^",
        "$",
        r"\b",
        r"\B",
        "a*",
        "(b|^a)",
        "(?:b$|a)+",
        r"(?-u:\xc3)",
        "(?m:$)",
    ];
    const ALL: &[Part] = &[Part::Key, Part::Value, Part::Headers];

    fn batch(key: &[u8], value: &[u8], header: &[u8]) -> Batch {
        let mut builder = BatchBuilder::new(Codec::None);
        let headers: &[(&[u8], Option<&[u8]>)] = &[(header, Some(b"0"))];
        let record = NewRecord { timestamp: TimestampMs(1), key: Some(key), value: Some(value), headers };
        builder.append(&record).unwrap();
        Batch::new(builder.build().unwrap()).unwrap()
    }

    /// Whether the only record of a batch is wanted, and whether the batch is looked into.
    fn check(pattern: &str, meaning: Meaning, parts: &[Part], batch: &Batch) -> (bool, bool) {
        let matcher = Matcher::new(pattern, &meaning, parts).unwrap();
        let record = batch.records().unwrap().next().unwrap().unwrap();
        (matcher.matches(&record), matcher.may_match(batch.payload()))
    }

    #[test]
    fn each_part_is_looked_at_by_itself() {
        let batch = batch(b"alpha", b"beta", b"gamma");

        for (pattern, part) in [("^alpha$", Part::Key), ("^beta$", Part::Value), ("^gamma$", Part::Headers)] {
            assert_eq!(check(pattern, Meaning::default(), &[part], &batch), (true, true), "{pattern}");
            let others: Vec<Part> = ALL.iter().copied().filter(|other| *other != part).collect();
            assert!(!check(pattern, Meaning::default(), &others, &batch).0, "{pattern}");
        }
        assert_eq!(check("delta", Meaning::default(), ALL, &batch), (false, false));
    }

    #[test]
    fn a_literal_has_no_special_characters_and_case_can_be_ignored() {
        let batch = batch(b"k", b"a.B", b"h");
        let literal = Meaning { is_literal: true, ..Meaning::default() };
        let ignoring = Meaning { ignores_case: true, ..literal.clone() };

        assert_eq!(check("a.B", literal.clone(), ALL, &batch), (true, true));
        assert_eq!(check("..B", literal.clone(), ALL, &batch), (false, false));
        assert_eq!(check("A.b", literal, ALL, &batch), (false, false));
        assert_eq!(check("A.b", ignoring, ALL, &batch), (true, true));
    }

    #[test]
    fn an_inverted_search_looks_into_every_batch() {
        let inverted = Meaning { is_inverted: true, ..Meaning::default() };

        assert_eq!(check("v", inverted.clone(), ALL, &batch(b"k", b"v", b"h")), (false, true));
        assert_eq!(check("x", inverted, ALL, &batch(b"k", b"v", b"h")), (true, true));
    }

    proptest! {
        #[test]
        fn no_batch_with_a_match_is_passed_over(
            pieces in vec(select(PIECES), 1..5),
            value in "[ab é-]{0,6}",
            ignores_case in any::<bool>(),
        ) {
            let (pattern, meaning) = (pieces.concat(), Meaning { ignores_case, ..Meaning::default() });
            let (matches, may) = check(&pattern, meaning, ALL, &batch(b"", value.as_bytes(), b""));
            prop_assert!(may || !matches, "{pattern} in {value:?}");
        }
    }
}
