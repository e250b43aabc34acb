//! Settings of topics and of the broker: described, changed one by one or all together, in force at once.

use anyhow::Context as _;
use highwater_protocol::ErrorCode;
use highwater_protocol::api::alter_client_quotas::request::EntryData;
use highwater_protocol::api::alter_client_quotas::{EntityData, OpData};
use highwater_protocol::api::alter_configs::{self, AlterConfigsRequest};
use highwater_protocol::api::describe_client_quotas::ComponentData;
use highwater_protocol::api::describe_configs::{DescribeConfigsRequest, DescribeConfigsResource};
use highwater_protocol::api::incremental_alter_configs::{
    AlterConfigsResource, AlterableConfig, IncrementalAlterConfigsRequest,
};
use highwater_protocol::api::offset_commit::{OffsetCommitRequestPartition, OffsetCommitRequestTopic};
use highwater_protocol::api::{AlterClientQuotasRequest, DescribeClientQuotasRequest, OffsetCommitRequest};
use highwater_protocol::wire::Str;
use highwater_record::{BatchBuilder, Codec, NewRecord, TimestampMs};

use super::{Admin, BROKER, TOPIC, done, named};
use crate::faults::batches::plain_batch;

pub(super) const SET: i8 = 0;
const DELETE: i8 = 1;
const APPEND: i8 = 2;
const SUBTRACT: i8 = 3;

/// A change of one setting: operation, name, value.
type Change<'a> = (i8, &'a str, Option<&'a str>);

fn resource(kind: i8, name: &str, changes: &[Change<'_>]) -> AlterConfigsResource {
    let configs = changes.iter().map(|(config_operation, name, value)| AlterableConfig {
        name: (*name).into(),
        config_operation: *config_operation,
        value: value.map(Str::from),
    });
    AlterConfigsResource { resource_type: kind, resource_name: name.into(), configs: configs.collect() }
}

impl Admin {
    fn alter_with(
        &mut self,
        resource: AlterConfigsResource,
        validate_only: bool,
    ) -> anyhow::Result<(ErrorCode, String)> {
        let request = IncrementalAlterConfigsRequest { resources: vec![resource], validate_only };
        let response = self.connection.call(1, &request)?;
        let answer = response.responses.into_iter().next().context("the answer names the resource")?;
        Ok((named(answer.error_code), answer.error_message.map(String::from).unwrap_or_default()))
    }

    /// Changes settings of the topic `t`; the answer's code and sentence.
    pub(super) fn alter(&mut self, changes: &[Change<'_>]) -> anyhow::Result<(ErrorCode, String)> {
        self.alter_with(resource(TOPIC, "t", changes), false)
    }

    /// Replaces the settings of the topic `t`; the answer's code and sentence.
    fn replace(&mut self, settings: &[(&str, Option<&str>)]) -> anyhow::Result<(ErrorCode, String)> {
        let configs = settings.iter().map(|(name, value)| alter_configs::AlterableConfig {
            name: (*name).into(),
            value: value.map(Str::from),
        });
        let resource = alter_configs::AlterConfigsResource {
            resource_type: TOPIC,
            resource_name: "t".into(),
            configs: configs.collect(),
        };
        let request = AlterConfigsRequest { resources: vec![resource], validate_only: false };
        let response = self.connection.call(2, &request)?;
        let answer = response.responses.into_iter().next().context("the answer names the resource")?;
        Ok((named(answer.error_code), answer.error_message.map(String::from).unwrap_or_default()))
    }
}

#[test]
fn a_topic_is_described_with_sources_synonyms_types_and_documentation() -> anyhow::Result<()> {
    let mut admin = Admin::start(&[])?;
    admin.connection.create_topic("t", 1, &[("segment.bytes", "2097152")])?;

    let settings = admin.settings("t")?;

    let set = &settings["segment.bytes"];
    assert_eq!((set.value.as_deref(), set.config_source, set.config_type), (Some("2097152"), 1, 3));
    assert!(!set.read_only && !set.is_sensitive && set.documentation.is_some());
    let synonyms: Vec<_> =
        set.synonyms.iter().map(|one| (one.name.as_str(), one.value.as_deref(), one.source)).collect();
    assert_eq!(
        synonyms,
        [("segment.bytes", Some("2097152"), 1), ("log.segment.bytes", Some("1073741824"), 5)]
    );
    let expected = [
        ("cleanup.policy", "delete", 7),
        ("delete.retention.ms", "86400000", 5),
        ("max.compaction.lag.ms", "9223372036854775807", 5),
        ("min.cleanable.dirty.ratio", "0.5", 6),
        ("min.compaction.lag.ms", "0", 5),
        ("compression.type", "producer", 2),
        ("max.message.bytes", "1048588", 3),
        ("min.insync.replicas", "1", 3),
        ("retention.ms", "604800000", 5),
        ("retention.bytes", "-1", 5),
        ("segment.ms", "604800000", 5),
        ("flush.ms", "9223372036854775807", 5),
        ("message.timestamp.type", "CreateTime", 2),
        ("durability", "fsync", 2),
        ("preallocate", "false", 1),
    ];
    for (name, value, kind) in expected {
        let config = &settings[name];
        assert_eq!(
            (config.value.as_deref(), config.config_source, config.config_type),
            (Some(value), 5, kind),
            "{name}"
        );
    }
    Ok(())
}

#[test]
fn only_the_keys_that_are_asked_for_are_described() -> anyhow::Result<()> {
    let mut admin = Admin::with_topic(1)?;
    let mut count = |keys: Option<&[&str]>| -> anyhow::Result<usize> {
        let resource = DescribeConfigsResource {
            resource_type: TOPIC,
            resource_name: "t".into(),
            configuration_keys: keys.map(|keys| keys.iter().map(|key| Str::from(*key)).collect()),
        };
        let request =
            DescribeConfigsRequest { resources: vec![resource], ..DescribeConfigsRequest::default() };
        let response = admin.connection.call(1, &request)?;
        assert!(response.results[0].configs.iter().all(|config| config.synonyms.is_empty()));
        Ok(response.results[0].configs.len())
    };

    let all = count(None)?;

    assert!(all > 10, "{all}");
    assert_eq!(count(Some(&[]))?, all);
    assert_eq!(count(Some(&["segment.ms", "no.such.key"]))?, 1);
    Ok(())
}

#[test]
fn the_broker_is_described_and_what_the_start_gave_stands_out() -> anyhow::Result<()> {
    let flags = ["--durability", "os", "--partitions", "3", "--group-initial-rebalance-delay-ms", "0"];
    let mut admin = Admin::start(&flags)?;
    admin.connection.create_topic("t", 1, &[])?;

    let described = admin.describe(BROKER, "1")?;

    let find = |name: &str| {
        let config = described.configs.iter().find(|config| config.name == name).cloned();
        config.map(|config| (config.value.map(String::from), config.config_source, config.read_only))
    };
    assert_eq!(find("durability"), Some((Some("os".to_owned()), 4, true)));
    assert_eq!(find("num.partitions"), Some((Some("3".to_owned()), 4, true)));
    assert_eq!(find("group.initial.rebalance.delay.ms"), Some((Some("0".to_owned()), 4, true)));
    assert_eq!(find("log.retention.ms"), Some((Some("604800000".to_owned()), 5, true)));
    assert_eq!(find("node.id"), Some((Some("1".to_owned()), 5, true)));
    assert!(find("log.dirs").is_some());
    // The topic inherits it.
    let inherited = &admin.settings("t")?["durability"];
    assert_eq!((inherited.value.as_deref(), inherited.config_source), (Some("os"), 4));
    Ok(())
}

#[test]
fn what_has_no_settings_is_described_as_empty_and_what_is_not_there_is_refused() -> anyhow::Result<()> {
    let mut admin = Admin::start(&[])?;
    for (kind, name) in [(BROKER, ""), (8, "1"), (16, "subscription"), (32, "group")] {
        let described = admin.describe(kind, name)?;
        assert_eq!(
            (named(described.error_code), described.configs.len()),
            (ErrorCode::None, 0),
            "{kind} {name}"
        );
    }
    let refused = [
        (TOPIC, "absent", ErrorCode::UnknownTopicOrPartition),
        (TOPIC, "a/b", ErrorCode::InvalidTopicException),
        (BROKER, "2", ErrorCode::InvalidRequest),
        (BROKER, "one", ErrorCode::InvalidRequest),
        (8, "", ErrorCode::InvalidRequest),
        (16, "", ErrorCode::InvalidRequest),
        (32, "", ErrorCode::InvalidRequest),
        (1, "x", ErrorCode::InvalidRequest),
    ];
    for (kind, name, code) in refused {
        let described = admin.describe(kind, name)?;
        assert_eq!(named(described.error_code), code, "{kind} {name}");
        assert!(described.error_message.is_some_and(|message| !message.is_empty()), "{kind} {name}");
    }
    Ok(())
}

#[test]
fn a_change_is_in_force_at_once_and_after_a_restart() -> anyhow::Result<()> {
    let mut admin = Admin::with_topic(1)?;
    let accepts = |admin: &mut Admin| -> anyhow::Result<bool> {
        Ok(admin.connection.produce("t", 0, plain_batch(0, 1000))?.error_code == 0)
    };
    assert!(accepts(&mut admin)?);

    assert_eq!(admin.alter(&[(SET, "max.message.bytes", Some("500"))])?, done());
    assert!(!accepts(&mut admin)?);

    admin.served.kill()?;
    admin.reconnect()?;
    assert_eq!(admin.setting("t", "max.message.bytes")?, "500");
    assert!(!accepts(&mut admin)?);

    assert_eq!(admin.alter(&[(DELETE, "max.message.bytes", None)])?, done());
    assert_eq!(admin.setting("t", "max.message.bytes")?, "1048588");
    assert!(accepts(&mut admin)?);
    Ok(())
}

#[test]
fn a_setting_that_was_accepted_once_does_not_keep_a_stricter_broker_from_starting() -> anyhow::Result<()> {
    let replicas = "min.insync.replicas";
    let mut admin = Admin::start(&[])?;
    admin.connection.create_topic("t", 1, &[(replicas, "2")])?;
    let accepted = |admin: &Admin| admin.served.broker.log().matches("another value holds").count();
    assert_eq!(accepted(&admin), 1);
    // Neither a check nor a change of something else says it again.
    assert_eq!(admin.alter_with(resource(TOPIC, "t", &[(SET, replicas, Some("3"))]), true)?, done());
    assert_eq!(admin.alter(&[(SET, "segment.ms", Some("5000"))])?, done());
    assert_eq!(accepted(&admin), 1);

    admin.served.restart_with(&["--strict-replication"])?;
    admin.reconnect()?;

    assert!(admin.served.broker.log().contains("a setting does not fit this broker"));
    assert_eq!(admin.connection.produce("t", 0, plain_batch(0, 100))?.error_code, 0);
    // What is set anew is judged.
    assert_eq!(admin.alter(&[(SET, replicas, Some("3"))])?.0, ErrorCode::InvalidConfig);
    assert_eq!(admin.alter(&[(SET, "segment.ms", Some("6000"))])?, done());
    assert_eq!(admin.setting("t", "segment.ms")?, "6000");
    assert_eq!(admin.alter(&[(DELETE, replicas, None)])?, done());
    assert_eq!(admin.setting("t", replicas)?, "1");
    Ok(())
}

#[test]
fn the_brokers_own_topics_are_described_with_the_durability_that_they_have() -> anyhow::Result<()> {
    for (flags, expected) in
        [(&["--durability", "interval=1000"][..], "fsync"), (&["--durability", "os"], "os")]
    {
        let mut admin = Admin::start(flags)?;
        admin.connection.create_topic("t", 1, &[])?;
        let topic = OffsetCommitRequestTopic {
            name: "t".into(),
            partitions: vec![OffsetCommitRequestPartition::default()],
        };
        let commit = OffsetCommitRequest {
            group_id: "g".into(),
            generation_id_or_member_epoch: -1,
            topics: vec![topic],
            ..OffsetCommitRequest::default()
        };
        assert_eq!(admin.connection.call(8, &commit)?.topics[0].partitions[0].error_code, 0);

        assert_eq!(admin.setting("__consumer_offsets", "durability")?, expected, "{flags:?}");
    }
    Ok(())
}

#[test]
fn a_segment_rolls_at_a_size_that_was_set_while_it_was_written() -> anyhow::Result<()> {
    let mut admin = Admin::with_topic(1)?;
    for counter in 0..3 {
        assert_eq!(admin.connection.produce("t", 0, plain_batch(counter, 600_000))?.error_code, 0);
    }
    assert_eq!(admin.segments()?, 1);

    assert_eq!(admin.alter(&[(SET, "segment.bytes", Some("1048576"))])?, done());
    assert_eq!(admin.connection.produce("t", 0, plain_batch(3, 600_000))?.error_code, 0);

    assert_eq!(admin.segments()?, 2);
    Ok(())
}

#[test]
fn records_appended_before_the_durability_rose_become_visible_and_durable() -> anyhow::Result<()> {
    let mut admin = Admin::start(&[])?;
    admin.connection.create_topic("t", 1, &[("durability", "interval=3600000")])?;
    assert_eq!(admin.connection.produce("t", 0, plain_batch(0, 100))?.error_code, 0);

    assert_eq!(admin.alter(&[(SET, "durability", Some("fsync"))])?, done());
    // Waits for a sync, which the old setting would have put off for an hour.
    assert_eq!(admin.connection.produce("t", 0, plain_batch(1, 100))?.error_code, 0);

    assert_eq!(admin.connection.latest_offset("t", 0)?, Some(2));
    Ok(())
}

#[test]
fn lists_take_appended_values_and_lose_subtracted_ones() -> anyhow::Result<()> {
    let mut admin = Admin::with_topic(1)?;

    assert_eq!(admin.alter(&[(APPEND, "cleanup.policy", Some("delete"))])?, done());
    assert_eq!(admin.setting("t", "cleanup.policy")?, "delete");
    assert_eq!(admin.alter(&[(APPEND, "cleanup.policy", Some("compact"))])?, done());
    assert_eq!(admin.setting("t", "cleanup.policy")?, "delete,compact");
    let (code, message) = admin.alter(&[(APPEND, "cleanup.policy", Some("compress"))])?;
    assert_eq!(code, ErrorCode::InvalidConfig);
    assert!(message.contains("\"delete,compact,compress\""), "{message}");
    assert_eq!(admin.alter(&[(SUBTRACT, "cleanup.policy", Some("compact"))])?, done());
    assert_eq!(admin.setting("t", "cleanup.policy")?, "delete");
    let (code, message) = admin.alter(&[(SUBTRACT, "cleanup.policy", Some("delete"))])?;
    assert_eq!(code, ErrorCode::InvalidConfig, "{message}");
    let (code, message) = admin.alter(&[(APPEND, "segment.bytes", Some("1"))])?;
    assert_eq!(code, ErrorCode::InvalidConfig);
    assert!(message.contains("is no list"), "{message}");
    Ok(())
}

#[test]
fn a_compacted_topic_takes_no_record_without_a_key() -> anyhow::Result<()> {
    let mut admin = Admin::with_topic(1)?;
    let batch = |codec, keys: &[Option<&[u8]>]| {
        let mut builder = BatchBuilder::new(codec);
        for key in keys {
            let record = NewRecord { timestamp: TimestampMs(1), key: *key, value: Some(b"v"), headers: &[] };
            builder.append(&record).expect("the record fits");
        }
        builder.build().expect("there are records")
    };
    let (key, none) = (Some(&b"k"[..]), None);
    assert_eq!(admin.connection.produce("t", 0, batch(Codec::Zstd, &[none]))?.error_code, 0);

    assert_eq!(admin.alter(&[(SET, "cleanup.policy", Some("compact"))])?, done());

    for codec in [Codec::None, Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd] {
        assert_eq!(admin.connection.produce("t", 0, batch(codec, &[key, key]))?.error_code, 0);
        let refused = admin.connection.produce("t", 0, batch(codec, &[key, key, none]))?;
        assert_eq!(refused.error_code, ErrorCode::InvalidRecord.code(), "{codec}");
        let message = refused.error_message.context("a refusal has a message")?;
        assert!(message.as_str().starts_with("record 2 has no key"), "{message:?}");
        assert_eq!(refused.record_errors.iter().map(|error| error.batch_index).collect::<Vec<_>>(), [2]);
    }
    assert_eq!(admin.connection.latest_offset("t", 0)?, Some(11));
    Ok(())
}

#[test]
fn changes_that_cannot_be_are_refused_and_change_nothing() -> anyhow::Result<()> {
    let mut admin = Admin::with_topic(1)?;
    let refused: [(&[Change<'_>], ErrorCode); 7] = [
        (&[(SET, "no.such.key", Some("1"))], ErrorCode::InvalidConfig),
        (&[(SET, "segment.bytes", Some("ten"))], ErrorCode::InvalidConfig),
        (&[(SET, "retention.ms", Some("-2"))], ErrorCode::InvalidConfig),
        (&[(SET, "segment.ms", None)], ErrorCode::InvalidRequest),
        (&[(9, "segment.ms", Some("1"))], ErrorCode::InvalidRequest),
        (&[(SET, "segment.ms", Some("1")), (DELETE, "segment.ms", None)], ErrorCode::InvalidRequest),
        // The first half would do.
        (&[(SET, "segment.ms", Some("1")), (SET, "segment.bytes", Some("1"))], ErrorCode::InvalidConfig),
    ];
    for (changes, code) in refused {
        let (found, message) = admin.alter(changes)?;
        assert_eq!(found, code, "{changes:?}: {message}");
        assert!(!message.is_empty(), "{changes:?}");
    }
    let elsewhere = [
        (TOPIC, "absent", ErrorCode::UnknownTopicOrPartition),
        (TOPIC, "__own", ErrorCode::UnknownTopicOrPartition),
        (BROKER, "1", ErrorCode::InvalidRequest),
        (BROKER, "", ErrorCode::InvalidRequest),
        (8, "1", ErrorCode::InvalidRequest),
        (16, "subscription", ErrorCode::InvalidRequest),
        (32, "group", ErrorCode::InvalidRequest),
        (0, "x", ErrorCode::InvalidRequest),
    ];
    for (kind, name, code) in elsewhere {
        let (found, message) =
            admin.alter_with(resource(kind, name, &[(SET, "segment.ms", Some("1"))]), false)?;
        assert_eq!(found, code, "{kind} {name}: {message}");
    }
    assert_eq!(admin.setting("t", "segment.ms")?, "604800000");
    Ok(())
}

#[test]
fn names_and_values_of_any_length_are_refused_with_a_sentence() -> anyhow::Result<()> {
    let mut admin = Admin::with_topic(1)?;
    // Each quoted byte takes several.
    let long = "\u{1}".repeat(32_767);

    assert_eq!(admin.alter(&[(SET, &long, Some("1"))])?.0, ErrorCode::InvalidConfig);
    assert_eq!(admin.alter(&[(SET, "segment.ms", Some(&long))])?.0, ErrorCode::InvalidConfig);
    assert_eq!(admin.alter(&[(SET, &long, None)])?.0, ErrorCode::InvalidRequest);
    assert_eq!(named(admin.describe(TOPIC, &long)?.error_code), ErrorCode::InvalidTopicException);
    assert_eq!(named(admin.describe(BROKER, &long)?.error_code), ErrorCode::InvalidRequest);
    for (name, setting, value) in
        [(long.as_str(), "segment.ms", "1"), ("u", &long, "1"), ("u", "segment.ms", &long)]
    {
        let refused = admin.connection.create_topic(name, 1, &[(setting, value)]);
        let refused = format!("{:#}", refused.expect_err("the topic cannot be created"));
        assert!(refused.contains("was refused"), "the connection was closed: {}", &refused[..100]);
    }
    for (kind, name, key) in [
        (long.as_str(), "x", "producer_byte_rate"),
        ("client-id", &long, "producer_byte_rate"),
        ("client-id", "x", &long),
    ] {
        let refused = admin.connection.call(1, &quota(kind, name, &[key]))?;
        assert_eq!(named(refused.entries[0].error_code), ErrorCode::InvalidRequest);
    }
    let refused = admin.connection.call(1, &quota("client-id", "x", &[&long, &long]))?;
    assert_eq!(named(refused.entries[0].error_code), ErrorCode::InvalidRequest);
    let component = ComponentData { entity_type: long.as_str().into(), match_type: 1, match_: None };
    let filter = DescribeClientQuotasRequest { components: vec![component], strict: false };
    assert_eq!(named(admin.connection.call(1, &filter)?.error_code), ErrorCode::UnsupportedVersion);
    Ok(())
}

/// Sets quotas of one entity.
fn quota(kind: &str, name: &str, keys: &[&str]) -> AlterClientQuotasRequest {
    let entity = EntityData { entity_type: kind.into(), entity_name: Some(name.into()) };
    let op = |key: &&str| OpData { key: (*key).into(), value: 5.0, remove: false };
    let ops = keys.iter().map(op).collect();
    let entries = vec![EntryData { entity: vec![entity], ops }];
    AlterClientQuotasRequest { entries, validate_only: false }
}

#[test]
fn deleting_what_is_not_set_is_nothing_to_do() -> anyhow::Result<()> {
    let mut admin = Admin::with_topic(1)?;
    let deletions: &[Change<'_>] =
        &[(DELETE, "leader.replication.throttled.rate", None), (DELETE, "flush.ms", None)];

    for (kind, name) in
        [(TOPIC, "t"), (BROKER, "1"), (BROKER, ""), (8, "1"), (16, "subscription"), (32, "group")]
    {
        assert_eq!(admin.alter_with(resource(kind, name, deletions), false)?, done(), "{kind} {name}");
    }
    Ok(())
}

#[test]
fn a_change_that_is_only_checked_changes_nothing() -> anyhow::Result<()> {
    let mut admin = Admin::with_topic(1)?;

    let checked = admin.alter_with(resource(TOPIC, "t", &[(SET, "segment.ms", Some("1"))]), true)?;
    let refused = admin.alter_with(resource(TOPIC, "t", &[(SET, "segment.ms", Some("x"))]), true)?;

    assert_eq!(checked, done());
    assert_eq!(refused.0, ErrorCode::InvalidConfig);
    assert_eq!(admin.setting("t", "segment.ms")?, "604800000");
    Ok(())
}

#[test]
fn a_resource_that_is_named_twice_is_refused_and_the_others_are_not() -> anyhow::Result<()> {
    let mut admin = Admin::with_topic(1)?;
    admin.connection.create_topic("other", 1, &[])?;
    let change = |name| resource(TOPIC, name, &[(SET, "segment.ms", Some("1"))]);

    let request = IncrementalAlterConfigsRequest {
        resources: vec![change("t"), change("other"), change("t")],
        validate_only: false,
    };
    let response = admin.connection.call(1, &request)?;

    let codes: Vec<_> = response.responses.iter().map(|answer| named(answer.error_code)).collect();
    assert_eq!(codes, [ErrorCode::InvalidRequest, ErrorCode::None, ErrorCode::InvalidRequest]);
    Ok(())
}

#[test]
fn replacing_drops_what_is_not_named() -> anyhow::Result<()> {
    let mut admin = Admin::with_topic(1)?;
    admin.alter(&[(SET, "segment.ms", Some("5000")), (SET, "flush.ms", Some("7"))])?;

    assert_eq!(admin.replace(&[("flush.ms", Some("8"))])?, done());

    assert_eq!(admin.setting("t", "flush.ms")?, "8");
    assert_eq!(admin.setting("t", "segment.ms")?, "604800000");
    assert_eq!(admin.replace(&[("flush.ms", None)])?.0, ErrorCode::InvalidRequest);
    assert_eq!(
        admin.replace(&[("flush.ms", Some("1")), ("flush.ms", Some("2"))])?.0,
        ErrorCode::InvalidRequest
    );
    assert_eq!(admin.replace(&[("no.such.key", Some("1"))])?.0, ErrorCode::InvalidConfig);
    assert_eq!(admin.setting("t", "flush.ms")?, "8");
    Ok(())
}

#[test]
fn racing_changes_do_not_lose_one_another() -> anyhow::Result<()> {
    let mut admin = Admin::with_topic(1)?;
    let address = admin.served.address();
    let keys = ["segment.ms", "flush.ms", "flush.messages", "index.interval.bytes", "segment.index.bytes"];

    std::thread::scope(|scope| {
        let racers: Vec<_> = keys
            .map(|key| {
                scope.spawn(move || -> anyhow::Result<()> {
                    let mut connection = crate::faults::client::Connection::open(address)?;
                    for value in 1_001..1_011 {
                        let resources = vec![resource(TOPIC, "t", &[(SET, key, Some(&value.to_string()))])];
                        let request = IncrementalAlterConfigsRequest { resources, validate_only: false };
                        assert_eq!(connection.call(1, &request)?.responses[0].error_code, 0);
                    }
                    Ok(())
                })
            })
            .into_iter()
            .collect();
        racers.into_iter().try_for_each(|racer| racer.join().expect("a racer does not panic"))
    })?;

    for key in keys {
        assert_eq!(admin.setting("t", key)?, "1010", "{key}");
    }
    Ok(())
}
