//! The tables of `highwater_protocol` say what Apache Kafka's published message definitions say.
//!
//! The definitions lie in the jar of Kafka's client, which the harness fetches by its Maven coordinates; none is
//! kept here. Whatever the bytes or the codec depend on is compared, in both directions and in the versions that
//! the table serves. Kafka's descriptions, entity types and map keys say nothing about bytes and are passed over;
//! an attribute that is not known here is a difference. The definitions of headers are not compared, nor are
//! Kafka's advertised versions.
//!
//! One difference is meant and passes: the default of a field that may be null is null in the table also where
//! Kafka, which gives none, takes an empty value (see [`highwater_protocol::wire::messages`]). In a tagged field,
//! where that would change the bytes, it does not pass.

mod defaults;
mod planted;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, ensure};
use highwater_protocol::ErrorCode;
use highwater_protocol::api::{TABLES, Table};
use highwater_protocol::wire::{FieldSpec, Kind, StructSpec, Versions};
use serde::Deserialize;
use serde_json::Value;

use self::defaults::Defaults;
use crate::harness::clients::run;
use crate::harness::skip::{Unavailable, or_skip};
use crate::harness::toolbox::{jars, program, tests_dir};

/// Attributes that say nothing about bytes.
const PASSED_OVER: &[&str] = &["about", "entityType", "listeners", "mapKey", "type"];

#[test]
fn the_tables_say_what_kafkas_definitions_say() -> anyhow::Result<()> {
    if or_skip(tools(&["jar"]))?.is_none() {
        return Ok(());
    }
    let dir = tempfile::tempdir()?;
    let definitions = extract(dir.path())?;
    let read = |table: &Table| {
        let path = definitions.join(format!("{}.json", table.spec.name));
        fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))
    };
    let mut differences = Vec::new();
    for pair in TABLES {
        let defaults = defaults::of(pair[0].key);
        differences.extend(compare([&read(&pair[0])?, &read(&pair[1])?], pair, &defaults)?);
    }
    ensure!(differences.is_empty(), "{} differences:\n{}", differences.len(), differences.join("\n"));
    Ok(())
}

#[test]
fn the_error_codes_are_kafkas() -> anyhow::Result<()> {
    // Without its compiler, Java does not run a source file.
    if or_skip(tools(&["java", "javac", "timeout"]))?.is_none() {
        return Ok(());
    }
    let mut command = Command::new("timeout");
    command.args(["--kill-after=5", "180", "java", "-XX:TieredStopAtLevel=1", "-cp"]);
    command.arg(client_jars()?).arg(tests_dir().join("interop/java/ErrorCodes.java"));
    let printed = String::from_utf8(run(command)?)?;

    let kafkas: BTreeSet<String> = printed.lines().map(str::to_owned).collect();
    let ours = ErrorCode::ALL.iter().map(|error| format!("{} {}", error.code(), error.name()));
    let ours: BTreeSet<String> = ours.collect();
    let missing: Vec<_> = kafkas.difference(&ours).collect();
    let invented: Vec<_> = ours.difference(&kafkas).collect();
    ensure!(missing.is_empty() && invented.is_empty(), "Kafka alone has {missing:?}, we alone {invented:?}");
    Ok(())
}

/// Sees to it that the jars and these programs are there.
fn tools(programs: &[&str]) -> Result<(), Unavailable> {
    programs.iter().try_for_each(|name| program(name).map(drop))?;
    jars().map(drop)
}

/// The class path of everything that the client needs.
fn client_jars() -> anyhow::Result<PathBuf> {
    let jars = jars().map_err(|why| anyhow::anyhow!("the jars are not there: {why:?}"))?;
    Ok(jars.join("*"))
}

/// Takes the definitions out of the client's jar and returns where they lie.
fn extract(directory: &Path) -> anyhow::Result<PathBuf> {
    let jars = jars().map_err(|why| anyhow::anyhow!("the jars are not there: {why:?}"))?;
    let files: Vec<PathBuf> =
        fs::read_dir(jars)?.map(|entry| Ok(entry?.path())).collect::<std::io::Result<_>>()?;
    let is_client = |file: &&PathBuf| {
        let name = file.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        name.starts_with("kafka-clients-") && name.ends_with(".jar")
    };
    let jar = files.iter().find(is_client).with_context(|| format!("{} has no client", jars.display()))?;
    let mut command = Command::new("jar");
    run({
        command.arg("xf").arg(jar).arg("common/message").current_dir(directory);
        command
    })?;
    Ok(directory.join("common/message"))
}

/// A definition as Kafka publishes it.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Definition {
    api_key: i16,
    name: String,
    valid_versions: String,
    /// Stands in requests alone and holds for the response too.
    #[serde(default)]
    latest_version_unstable: bool,
    flexible_versions: String,
    fields: Vec<Field>,
    /// Structs that several fields share.
    #[serde(default)]
    common_structs: Vec<CommonStruct>,
    #[serde(flatten)]
    rest: BTreeMap<String, Value>,
}

#[derive(Deserialize)]
struct CommonStruct {
    name: String,
    versions: String,
    fields: Vec<Field>,
    #[serde(flatten)]
    rest: BTreeMap<String, Value>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Field {
    name: String,
    #[serde(rename = "type")]
    kind: String,
    versions: String,
    nullable_versions: Option<String>,
    tag: Option<u32>,
    tagged_versions: Option<String>,
    #[serde(default)]
    ignorable: bool,
    default: Option<Value>,
    fields: Option<Vec<Self>>,
    #[serde(flatten)]
    rest: BTreeMap<String, Value>,
}

impl Definition {
    /// Reads JSON with lines of comment.
    fn parse(text: &str) -> anyhow::Result<Self> {
        let is_comment = |line: &&str| line.trim_start().starts_with("//");
        let json: Vec<&str> = text.lines().filter(|line| !is_comment(line)).collect();
        Ok(serde_json::from_str(&json.join("\n"))?)
    }
}

impl Field {
    /// The versions that have the field.
    fn versions(&self) -> Versions {
        Versions::parse(&self.versions)
    }

    /// The name as [`FieldSpec::kafka_name`] writes it: two of Kafka's names begin in lower case.
    fn name(&self) -> String {
        let (first, rest) = self.name.split_at_checked(1).unwrap_or((&self.name, ""));
        first.to_ascii_uppercase() + rest
    }
}

/// What the definitions of a request and its response and their tables say differently, a sentence each.
fn compare(texts: [&str; 2], tables: &[Table; 2], defaults: &Defaults) -> anyhow::Result<Vec<String>> {
    let parsed = |at: usize| Definition::parse(texts[at]).context(tables[at].spec.name);
    let definitions = [parsed(0)?, parsed(1)?];
    let latest_is_unstable = definitions[0].latest_version_unstable;
    let mut differences = Vec::new();
    for (definition, table) in definitions.iter().zip(tables) {
        let mut comparison = Comparison { definition, defaults, differences };
        comparison.messages(table, latest_is_unstable);
        differences = comparison.differences;
    }
    Ok(differences)
}

/// A definition and what was found to differ from it so far.
struct Comparison<'a> {
    definition: &'a Definition,
    defaults: &'a Defaults,
    differences: Vec<String>,
}

impl Comparison<'_> {
    fn messages(&mut self, table: &Table, latest_is_unstable: bool) {
        let (definition, at) = (self.definition, table.spec.name);
        let valid = Versions::parse(&definition.valid_versions);
        let stable = Versions::new(valid.min(), valid.max() - i16::from(latest_is_unstable));
        let flexible = Versions::parse(&definition.flexible_versions);
        self.same(at, "the name", &definition.name, at);
        self.same(at, "the API key", definition.api_key, table.key.code());
        self.same(at, "the stable versions", shown(stable), shown(table.versions));
        self.same(at, "the flexible versions", shown(flexible), shown(table.flexible));
        self.only_known(at, &definition.rest);
        for shared in &definition.common_structs {
            self.only_known(&shared.name, &shared.rest);
        }
        self.structs(at, &definition.fields, table.spec, table.versions);
    }

    /// Compares structs in the versions that can hold them.
    fn structs(&mut self, at: &str, kafka: &[Field], ours: &StructSpec, within: Versions) {
        let kafka: Vec<&Field> =
            kafka.iter().filter(|field| !both(field.versions(), within).is_empty()).collect();
        for field in ours.fields {
            let name = field.kafka_name();
            if both(field.versions, within).is_empty() {
                self.differ(format!("{at} has {name} in the table, in no version that is served."));
            } else if !kafka.iter().any(|field| field.name() == name) {
                self.differ(format!("{at} has {name} in the table alone."));
            }
        }
        for field in &kafka {
            let name = field.name();
            match ours.fields.iter().find(|field| field.kafka_name() == name) {
                Some(row) => {
                    let at = format!("{at}.{name}");
                    self.fields(&at, field, row, within);
                    self.default_values(&at, field, row, ours.name);
                }
                None => self.differ(format!("{at} has {name} in Kafka's definition alone.")),
            }
        }
        self.orders(at, &kafka, ours);
    }

    /// Compares the order of the fields that both have.
    fn orders(&mut self, at: &str, kafka: &[&Field], ours: &StructSpec) {
        let kafka: Vec<String> = kafka.iter().map(|field| field.name()).collect();
        let ours: Vec<String> = ours.fields.iter().map(FieldSpec::kafka_name).collect();
        let of_kafka = kafka.iter().filter(|name| ours.contains(name));
        let of_ours = ours.iter().filter(|name| kafka.contains(name));
        if let Some((kafka, ours)) = of_kafka.zip(of_ours).find(|(kafka, ours)| kafka != ours) {
            self.differ(format!("{at} has {kafka} in Kafka's definition where the table has {ours}."));
        }
    }

    /// Compares all but the defaults of two fields of one name.
    fn fields(&mut self, at: &str, kafka: &Field, ours: &FieldSpec, within: Versions) {
        let versions = both(kafka.versions(), within);
        let range = |text: &Option<String>| shown(both(optional(text.as_deref()), versions));
        let clamped = |ours| shown(both(ours, versions));
        self.same(at, "the versions", shown(versions), shown(both(ours.versions, within)));
        self.same(at, "the type", &kafka.kind, kind_name(ours.kind));
        self.same(at, "the nullable versions", range(&kafka.nullable_versions), clamped(ours.nullable));
        self.same(at, "the tag", tag_name(kafka.tag), tag_name(ours.tag));
        self.same(at, "the tagged versions", range(&kafka.tagged_versions), clamped(ours.tagged));
        self.same(at, "ignorable", kafka.ignorable, ours.ignorable);
        self.only_known(at, &kafka.rest);
        if let Some(inner) = inner_struct(ours.kind) {
            match self.fields_of(kafka) {
                Some((fields, held)) => self.structs(at, fields, inner, both(versions, held)),
                None => self.differ(format!("{at} has fields in the table alone.")),
            }
        }
    }

    /// Compares the defaults of two fields of one name; ours is in the struct `owner`.
    fn default_values(&mut self, at: &str, kafka: &Field, ours: &FieldSpec, owner: &'static str) {
        // A struct that cannot be null has the defaults of its fields, which are compared one by one.
        if matches!(ours.kind, Kind::Struct(_)) && kafka.nullable_versions.is_none() {
            return;
        }
        let Some(our_value) = self.defaults.get(&(owner, ours.name)) else {
            return self.differ(format!("{at} has a default that is not known here."));
        };
        let kafka_value = defaults::of_kafka(&kafka.kind, kafka.default.as_ref());
        let null_is_meant = kafka.default.is_none()
            && kafka.nullable_versions.is_some()
            && kafka.tag.is_none()
            && our_value == defaults::NULL;
        if !null_is_meant {
            self.same(at, "the default", kafka_value, our_value);
        }
    }

    /// The fields of a struct, written inside the field or shared, and the versions that the struct has.
    fn fields_of<'f>(&self, field: &'f Field) -> Option<(&'f [Field], Versions)>
    where
        Self: 'f,
    {
        let name = field.kind.trim_start_matches("[]");
        let shared = || self.definition.common_structs.iter().find(|shared| shared.name == name);
        let inside = field.fields.as_deref().map(|fields| (fields, field.versions()));
        inside.or_else(|| shared().map(|shared| (&shared.fields[..], Versions::parse(&shared.versions))))
    }

    /// An attribute that is not known here may change the bytes.
    fn only_known(&mut self, at: &str, rest: &BTreeMap<String, Value>) {
        for name in rest.keys().filter(|name| !PASSED_OVER.contains(&name.as_str())) {
            self.differ(format!("{at} has an attribute that is not known here, {name}."));
        }
    }

    fn same(&mut self, at: &str, what: &str, kafka: impl Display, ours: impl Display) {
        let (kafka, ours) = (kafka.to_string(), ours.to_string());
        if kafka != ours {
            self.differ(format!(
                "{at} differs in {what}: {kafka} in Kafka's definition, {ours} in the table."
            ));
        }
    }

    fn differ(&mut self, sentence: String) {
        self.differences.push(sentence);
    }
}

/// The versions in both ranges.
fn both(one: Versions, other: Versions) -> Versions {
    let common = Versions::new(one.min().max(other.min()), one.max().min(other.max()));
    if common.is_empty() { Versions::NONE } else { common }
}

fn optional(text: Option<&str>) -> Versions {
    text.map_or(Versions::NONE, Versions::parse)
}

/// A range as Kafka writes it.
fn shown(versions: Versions) -> String {
    let (min, max) = (versions.min(), versions.max());
    match max {
        _ if versions.is_empty() => "none".to_owned(),
        i16::MAX => format!("{min}+"),
        _ if min == max => min.to_string(),
        _ => format!("{min}-{max}"),
    }
}

fn tag_name(tag: Option<u32>) -> String {
    tag.map_or("none".to_owned(), |tag| tag.to_string())
}

/// The type as Kafka writes it.
fn kind_name(kind: Kind) -> String {
    match kind {
        Kind::Bool => "bool".to_owned(),
        Kind::Int8 => "int8".to_owned(),
        Kind::Int16 => "int16".to_owned(),
        Kind::Uint16 => "uint16".to_owned(),
        Kind::Int32 => "int32".to_owned(),
        Kind::Int64 => "int64".to_owned(),
        Kind::Float64 => "float64".to_owned(),
        Kind::Uuid => "uuid".to_owned(),
        Kind::String => "string".to_owned(),
        Kind::Bytes => "bytes".to_owned(),
        Kind::Records => "records".to_owned(),
        Kind::Array(element) => format!("[]{}", kind_name(*element)),
        Kind::Struct(spec) => spec.name.to_owned(),
    }
}

/// The struct that the type is or is made of.
fn inner_struct(kind: Kind) -> Option<&'static StructSpec> {
    match kind {
        Kind::Struct(spec) => Some(spec),
        Kind::Array(element) => inner_struct(*element),
        _ => None,
    }
}
