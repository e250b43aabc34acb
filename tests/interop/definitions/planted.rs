//! The comparison finds each kind of difference, planted in a definition that agrees with its table.

use highwater_protocol::ApiKey;
use highwater_protocol::api::Table;
use highwater_protocol::wire::{Message, Records, Str, Uuid, Versions, messages};

use super::compare;
use super::defaults::{Defaults, of_struct};

messages! {
    /// A request with a field of each sort.
    SampleRequest "1-4", flexible "2+" {
        /// Null from version 2 on.
        name: Option<Str>, "0+", nullable "2+";
        /// With a default.
        wait_ms: i32, "0+", default -1, ignorable true;
        /// Items of a struct inside the field.
        items: Vec<SampleItem>, "1+";
        /// A struct that is shared.
        place: SamplePlace, "3+", tag 0 "3+", ignorable true;
        /// The same in an array.
        places: Vec<SamplePlace>, "3+", tag 1 "3+", ignorable true;
    }

    /// An item.
    SampleItem {
        /// Its id.
        item_id: Uuid, "1+";
        /// Its records.
        records: Records, "1+", nullable "1+";
    }

    /// A place.
    SamplePlace {
        /// Its name.
        host: Str, "3+";
        /// A default in other digits.
        port: i32, "3+", default i32::MAX;
    }

    /// The response.
    SampleResponse "1-4", flexible "2+" {
        /// Null if nothing is to be said; Kafka gives no default.
        message: Option<Str>, "1+", nullable "1+";
    }
}

/// Version 5 is unstable, and what it alone has is left out, like what is gone in version 1.
const REQUEST: &str = r#"
// A licence.
{
  "apiKey": 1,
  "type": "request",
  "listeners": ["broker"],
  "name": "SampleRequest",
  // Version 5 is new.
  "validVersions": "1-5",
  "flexibleVersions": "2+",
  "latestVersionUnstable": true,
  "fields": [
    { "name": "Name", "type": "string", "versions": "0+", "nullableVersions": "2+", "default": "null" },
    { "name": "Old", "type": "string", "versions": "0", "about": "It is gone." },
    { "name": "waitMs", "type": "int32", "versions": "0+", "default": "-1", "ignorable": true },
    { "name": "Items", "type": "[]SampleItem", "versions": "1+", "fields": [
      { "name": "ItemId", "type": "uuid", "versions": "1+", "mapKey": true },
      { "name": "Records", "type": "records", "versions": "1+", "nullableVersions": "1+" }
    ]},
    { "name": "Place", "type": "SamplePlace", "versions": "3+", "tag": 0, "taggedVersions": "3+",
      "ignorable": true },
    { "name": "Places", "type": "[]SamplePlace", "versions": "3+", "tag": 1, "taggedVersions": "3+",
      "ignorable": true },
    { "name": "New", "type": "int32", "versions": "5+" }
  ],
  "commonStructs": [
    { "name": "SamplePlace", "versions": "3+", "fields": [
      { "name": "Host", "type": "string", "versions": "0+" },
      { "name": "Port", "type": "int32", "versions": "3+", "default": "0x7fffffff" }
    ]}
  ]
}"#;

const RESPONSE: &str = r#"{
  "apiKey": 1,
  "type": "response",
  "name": "SampleResponse",
  "validVersions": "1-5",
  "flexibleVersions": "2+",
  "fields": [
    { "name": "Message", "type": "string", "versions": "1+", "nullableVersions": "0+" }
  ]
}"#;

fn table<M: Message>() -> Table {
    Table { key: ApiKey::Fetch, spec: M::SPEC, versions: M::VERSIONS, flexible: M::FLEXIBLE }
}

fn defaults() -> Defaults {
    let structs = [
        of_struct::<SampleRequest>(),
        of_struct::<SampleItem>(),
        of_struct::<SamplePlace>(),
        of_struct::<SampleResponse>(),
    ];
    structs.into_iter().flatten().collect()
}

fn differences(request: &str, response: &str) -> anyhow::Result<Vec<String>> {
    compare([request, response], &[table::<SampleRequest>(), table::<SampleResponse>()], &defaults())
}

#[test]
fn a_struct_whose_defaults_are_not_known_is_found() -> anyhow::Result<()> {
    let mut known = defaults();
    known.retain(|(owner, _), _| *owner != "SampleResponse");

    let found = compare([REQUEST, RESPONSE], &[table::<SampleRequest>(), table::<SampleResponse>()], &known)?;

    assert_eq!(found, ["SampleResponse.Message has a default that is not known here."]);
    Ok(())
}

/// What is found after each `before` in the request's definition has become `after`.
#[track_caller]
fn check(before: &str, after: &str, expected: &[&str]) {
    assert!(REQUEST.contains(before), "the definition has {before}");
    let found = differences(&REQUEST.replace(before, after), RESPONSE).expect("definitions can be read");
    assert_eq!(found, expected);
}

#[test]
fn a_definition_that_agrees_has_no_differences() {
    check("A licence", "Another licence", &[]);
}

#[test]
fn a_renamed_field_is_found_on_both_sides() {
    check(
        r#""ItemId""#,
        r#""Id""#,
        &[
            "SampleRequest.Items has ItemId in the table alone.",
            "SampleRequest.Items has Id in Kafka's definition alone.",
        ],
    );
}

#[test]
fn a_field_that_only_one_side_has_is_found() {
    check(
        r#"{ "name": "New", "type": "int32", "versions": "5+" }"#,
        r#"{ "name": "New", "type": "int32", "versions": "4+" }"#,
        &["SampleRequest has New in Kafka's definition alone."],
    );
    check(
        r#"{ "name": "Host", "type": "string", "versions": "0+" },"#,
        "",
        &[
            "SampleRequest.Place has Host in the table alone.",
            "SampleRequest.Places has Host in the table alone.",
        ],
    );
}

#[test]
fn a_field_of_no_served_version_is_found() -> anyhow::Result<()> {
    let request = Table { versions: Versions::new(1, 2), ..table::<SampleRequest>() };

    let found = compare([REQUEST, RESPONSE], &[request, table::<SampleResponse>()], &defaults())?;

    assert_eq!(
        found,
        [
            "SampleRequest differs in the stable versions: 1-4 in Kafka's definition, 1-2 in the table.",
            "SampleRequest has Place in the table, in no version that is served.",
            "SampleRequest has Places in the table, in no version that is served.",
        ]
    );
    Ok(())
}

#[test]
fn a_wrong_version_is_found() {
    check(
        r#""uuid", "versions": "1+""#,
        r#""uuid", "versions": "2-3""#,
        &["SampleRequest.Items.ItemId differs in the versions: 2-3 in Kafka's definition, 1-4 in the table."],
    );
}

#[test]
fn a_wrong_type_is_found() {
    check(
        r#""type": "uuid""#,
        r#""type": "[]uuid""#,
        &[
            "SampleRequest.Items.ItemId differs in the type: []uuid in Kafka's definition, uuid in the table.",
            "SampleRequest.Items.ItemId differs in the default: [] in Kafka's definition, \
             AAAAAAAAAAAAAAAAAAAAAA in the table.",
        ],
    );
}

#[test]
fn a_wrong_nullability_is_found() {
    check(
        r#""nullableVersions": "2+""#,
        r#""nullableVersions": "0+""#,
        &[
            "SampleRequest.Name differs in the nullable versions: 1-4 in Kafka's definition, 2-4 in the table.",
        ],
    );
}

#[test]
fn a_wrong_tag_is_found() {
    check(
        r#""tag": 0"#,
        r#""tag": 2"#,
        &["SampleRequest.Place differs in the tag: 2 in Kafka's definition, 0 in the table."],
    );
    check(
        r#""tag": 0, "taggedVersions": "3+""#,
        r#""tag": 0, "taggedVersions": "4+""#,
        &["SampleRequest.Place differs in the tagged versions: 4 in Kafka's definition, 3-4 in the table."],
    );
}

#[test]
fn a_wrong_ignorable_is_found() {
    check(
        r#""default": "-1", "ignorable": true"#,
        r#""default": "-1""#,
        &["SampleRequest.WaitMs differs in ignorable: false in Kafka's definition, true in the table."],
    );
}

#[test]
fn a_wrong_default_is_found() {
    check(
        r#""default": "-1""#,
        r#""default": "500""#,
        &["SampleRequest.WaitMs differs in the default: 500 in Kafka's definition, -1 in the table."],
    );
    check(
        r#""default": "0x7fffffff""#,
        r#""default": "0x7ffffffe""#,
        &[
            "SampleRequest.Place.Port differs in the default: 2147483646 in Kafka's definition, \
             2147483647 in the table.",
            "SampleRequest.Places.Port differs in the default: 2147483646 in Kafka's definition, \
             2147483647 in the table.",
        ],
    );
    check(
        r#""default": "null""#,
        r#""default": "all""#,
        &["SampleRequest.Name differs in the default: \"all\" in Kafka's definition, null in the table."],
    );
}

#[test]
fn a_swapped_order_is_found() {
    check(
        r#"{ "name": "Host", "type": "string", "versions": "0+" },
      { "name": "Port", "type": "int32", "versions": "3+", "default": "0x7fffffff" }"#,
        r#"{ "name": "Port", "type": "int32", "versions": "3+", "default": "0x7fffffff" },
      { "name": "Host", "type": "string", "versions": "0+" }"#,
        &[
            "SampleRequest.Place has Port in Kafka's definition where the table has Host.",
            "SampleRequest.Places has Port in Kafka's definition where the table has Host.",
        ],
    );
}

#[test]
fn a_wrong_message_is_found() {
    check(
        r#""apiKey": 1"#,
        r#""apiKey": 2"#,
        &["SampleRequest differs in the API key: 2 in Kafka's definition, 1 in the table."],
    );
    check(
        r#""name": "SampleRequest""#,
        r#""name": "ExampleRequest""#,
        &[
            "SampleRequest differs in the name: ExampleRequest in Kafka's definition, SampleRequest in the table.",
        ],
    );
    check(
        r#""flexibleVersions": "2+""#,
        r#""flexibleVersions": "3+""#,
        &["SampleRequest differs in the flexible versions: 3+ in Kafka's definition, 2+ in the table."],
    );
}

#[test]
fn an_unstable_version_is_unstable_in_the_response_too() {
    check(
        r#""latestVersionUnstable": true,"#,
        "",
        &[
            "SampleRequest differs in the stable versions: 1-5 in Kafka's definition, 1-4 in the table.",
            "SampleResponse differs in the stable versions: 1-5 in Kafka's definition, 1-4 in the table.",
        ],
    );
}

#[test]
fn an_attribute_that_is_not_known_is_found() {
    check(
        r#""mapKey": true"#,
        r#""flexibleVersions": "none""#,
        &["SampleRequest.Items.ItemId has an attribute that is not known here, flexibleVersions."],
    );
}

#[test]
fn null_for_an_empty_value_passes_only_where_it_is_not_tagged() -> anyhow::Result<()> {
    let tagged = RESPONSE.replace(r#""0+" }"#, r#""0+", "tag": 0, "taggedVersions": "2+" }"#);

    let found = differences(REQUEST, &tagged)?;

    let expected =
        "SampleResponse.Message differs in the default: \"\" in Kafka's definition, null in the table.";
    assert!(found.contains(&expected.to_owned()), "{found:?}");
    Ok(())
}
