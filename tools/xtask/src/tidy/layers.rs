//! The dependency arrow: what each crate of the workspace may depend on.
//!
//! Development dependencies are free, normal and build dependencies are not. Only direct ones are looked at: an
//! indirect one is the direct one of a crate that is in the table.

use std::path::Path;

use anyhow::{Context, Result};
use cargo_metadata::{DependencyKind, MetadataCommand, Package};

use super::Violation;

/// What one crate may depend on.
struct Layer {
    name: &'static str,
    /// Crates of this workspace.
    ours: &'static [&'static str],
    others: Others,
}

/// Crates from outside.
enum Others {
    /// These alone: the crate is at the bottom, and what it pulls in, everything pulls in.
    Closed(&'static [&'static str]),
    /// What `[workspace.dependencies]` has.
    Open,
}

const RECORD: &str = "highwater-record";
const WIRE: &str = "highwater-wire";
const PROTOCOL: &str = "highwater-protocol";
const STORAGE: &str = "highwater-storage";
const GROUP: &str = "highwater-group";
const BROKER: &str = "highwater-broker";
const CLIENT: &str = "highwater-client";
const TESTS: &str = "highwater-tests";

/// From the bottom of the house to the top. Think hard about the layering before you change this table.
const LAYERS: &[Layer] = &[
    Layer {
        name: RECORD,
        ours: &[],
        others: Others::Closed(&[
            "bytes",
            "crc-fast",
            "flate2",
            "lz4_flex",
            "snap",
            "thiserror",
            "twox-hash",
            "zstd",
        ]),
    },
    Layer { name: WIRE, ours: &[], others: Others::Closed(&["bytes", "thiserror"]) },
    Layer { name: PROTOCOL, ours: &[RECORD, WIRE], others: Others::Closed(&["bytes", "thiserror"]) },
    Layer {
        name: STORAGE,
        ours: &[RECORD],
        others: Others::Closed(&[
            "arc-swap",
            "bytes",
            "crc32fast",
            "libc",
            "memmap2",
            "parking_lot",
            "rustix",
            "thiserror",
            "tracing",
        ]),
    },
    Layer { name: GROUP, ours: &[RECORD, WIRE], others: Others::Closed(&["bytes", "thiserror"]) },
    Layer { name: BROKER, ours: &[RECORD, WIRE, PROTOCOL, STORAGE, GROUP], others: Others::Open },
    Layer { name: CLIENT, ours: &[RECORD, WIRE, PROTOCOL], others: Others::Open },
    Layer {
        name: "highwater",
        ours: &[RECORD, PROTOCOL, STORAGE, GROUP, BROKER, CLIENT],
        others: Others::Open,
    },
    Layer { name: TESTS, ours: &[RECORD, WIRE, PROTOCOL, STORAGE, BROKER, CLIENT], others: Others::Open },
    Layer {
        name: "highwater-benches",
        ours: &[RECORD, WIRE, PROTOCOL, STORAGE, BROKER, CLIENT],
        others: Others::Open,
    },
    Layer { name: "xtask", ours: &[WIRE, PROTOCOL], others: Others::Open },
];

/// Crates that only some may use, and why.
const RESERVED: &[(&str, &[&str], &str)] = &[
    ("kafka-protocol", &[TESTS], "it aborts on hostile bytes and serves as an oracle in tests only"),
    ("libc", &[STORAGE], "its calls are unsafe, and rustix has nearly all of them"),
    // The broker's receive buffers are anonymous maps; mapping a file is unsafe, which the broker forbids itself.
    ("memmap2", &[STORAGE, BROKER], "only storage maps files"),
];

/// One crate and the crates that it needs when it is not being tested.
struct Member {
    name: String,
    /// Relative to the workspace.
    manifest: String,
    dependencies: Vec<String>,
}

/// Checks the members of the workspace at `root`. Reads manifests only: no network, no lock.
pub(super) fn check_workspace(root: &Path) -> Result<Vec<Violation>> {
    let metadata = MetadataCommand::new()
        .manifest_path(root.join("Cargo.toml"))
        .no_deps()
        .other_options(["--offline".to_owned()])
        .exec()
        .context("ask cargo for the workspace's members")?;
    let members: Vec<_> = metadata.packages.iter().map(|package| Member::read(root, package)).collect();
    let mut violations = check(&members);
    for violation in &mut violations {
        violation.line = line_of_dependency(root, violation).unwrap_or(1);
    }
    Ok(violations)
}

impl Member {
    fn read(root: &Path, package: &Package) -> Self {
        let needed = package.dependencies.iter().filter(|d| d.kind != DependencyKind::Development);
        Self {
            name: package.name.to_string(),
            manifest: super::relative(root, package.manifest_path.as_std_path()),
            dependencies: needed.map(|dependency| dependency.name.clone()).collect(),
        }
    }
}

fn check(members: &[Member]) -> Vec<Violation> {
    let mut violations = Vec::new();
    for member in members {
        let Some(layer) = LAYERS.iter().find(|layer| layer.name == member.name) else {
            let sentence = format!("{} has no place in the layer table of xtask.", member.name);
            violations.push(Violation::new(&member.manifest, 1, sentence));
            continue;
        };
        for dependency in &member.dependencies {
            let sentence = objection(layer, dependency, members);
            violations.extend(sentence.map(|sentence| Violation::new(&member.manifest, 1, sentence)));
        }
    }
    violations
}

fn objection(layer: &Layer, dependency: &str, members: &[Member]) -> Option<String> {
    let name = layer.name;
    let refused = format!("{name} must not depend on {dependency}");
    if members.iter().any(|member| member.name == dependency) {
        return (!layer.ours.contains(&dependency)).then(|| format!("{refused}: it is not below it."));
    }
    if let Some((_, users, why)) = RESERVED.iter().find(|(reserved, ..)| *reserved == dependency)
        && !users.contains(&name)
    {
        return Some(format!("{refused}: {why}."));
    }
    match layer.others {
        Others::Closed(list) if !list.contains(&dependency) => {
            Some(format!("{refused}: its list of outside crates is closed."))
        }
        _ => None,
    }
}

/// Where the manifest names the dependency that the sentence speaks of.
fn line_of_dependency(root: &Path, violation: &Violation) -> Option<usize> {
    let (_, rest) = violation.sentence.split_once("depend on ")?;
    let (dependency, _) = rest.split_once(':')?;
    let manifest = std::fs::read_to_string(root.join(&violation.path)).ok()?;
    let names_it =
        |line: &str| line.strip_prefix(dependency).is_some_and(|rest| rest.starts_with(['.', ' ', '=']));
    manifest.lines().position(names_it).map(|index| index + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(name: &str, dependencies: &[&str]) -> Member {
        let dependencies = dependencies.iter().map(|&d| d.to_owned()).collect();
        Member { name: name.to_owned(), manifest: format!("{name}/Cargo.toml"), dependencies }
    }

    /// The workspace's members without dependencies, one of them replaced.
    #[track_caller]
    fn check_with(name: &str, dependencies: &[&str], sentences: &[&str]) {
        let others = LAYERS.iter().filter(|layer| layer.name != name);
        let mut members: Vec<_> = others.map(|layer| member(layer.name, &[])).collect();
        members.push(member(name, dependencies));

        let violations = check(&members);

        let found: Vec<_> = violations.iter().map(|v| v.sentence.as_str()).collect();
        assert_eq!(found, sentences);
    }

    #[test]
    fn the_arrows_of_the_design_are_allowed() {
        check_with(STORAGE, &[RECORD, "memmap2", "rustix"], &[]);
        check_with(PROTOCOL, &[RECORD, WIRE, "bytes"], &[]);
        check_with(BROKER, &[RECORD, WIRE, PROTOCOL, STORAGE, "tokio"], &[]);
        check_with(CLIENT, &[RECORD, PROTOCOL, "tokio"], &[]);
        check_with("highwater", &[BROKER, CLIENT, STORAGE, RECORD, "clap"], &[]);
    }

    #[test]
    fn neighbours_do_not_know_each_other() {
        check_with(
            STORAGE,
            &[PROTOCOL],
            &["highwater-storage must not depend on highwater-protocol: it is not below it."],
        );
        check_with(
            GROUP,
            &[STORAGE],
            &["highwater-group must not depend on highwater-storage: it is not below it."],
        );
        check_with(
            CLIENT,
            &[STORAGE, BROKER],
            &[
                "highwater-client must not depend on highwater-storage: it is not below it.",
                "highwater-client must not depend on highwater-broker: it is not below it.",
            ],
        );
        check_with(
            BROKER,
            &[CLIENT],
            &["highwater-broker must not depend on highwater-client: it is not below it."],
        );
    }

    #[test]
    fn the_bottom_crates_have_closed_lists() {
        for name in [RECORD, WIRE, PROTOCOL, STORAGE, GROUP] {
            let sentence =
                format!("{name} must not depend on serde_json: its list of outside crates is closed.");
            check_with(name, &["serde_json"], &[&sentence]);
        }
        check_with(BROKER, &["serde_json"], &[]);
    }

    #[test]
    fn the_oracle_and_the_maps_are_reserved() {
        check_with(TESTS, &["kafka-protocol"], &[]);
        let oracle = "highwater-client must not depend on kafka-protocol: it aborts on hostile bytes and serves as an \
                      oracle in tests only.";
        check_with(CLIENT, &["kafka-protocol"], &[oracle]);
        check_with(
            CLIENT,
            &["memmap2"],
            &["highwater-client must not depend on memmap2: only storage maps files."],
        );
    }

    #[test]
    fn a_crate_without_a_place_is_refused() {
        check_with("highwater-misc", &[], &["highwater-misc has no place in the layer table of xtask."]);
    }

    #[test]
    fn every_row_of_the_table_is_a_member() {
        let root = crate::workspace_root().unwrap();
        let metadata =
            MetadataCommand::new().manifest_path(root.join("Cargo.toml")).no_deps().exec().unwrap();

        for layer in LAYERS {
            let is_member = metadata.packages.iter().any(|package| package.name.as_str() == layer.name);
            assert!(is_member, "{} is in the layer table and not in the workspace", layer.name);
        }
    }

    #[test]
    fn a_violation_points_at_its_line_in_the_manifest() {
        let violation = Violation::new("tools/xtask/Cargo.toml", 1, "xtask must not depend on syn: no.");

        let line = line_of_dependency(crate::workspace_root().unwrap(), &violation);

        assert!(line.is_some_and(|line| line > 1));
    }
}
