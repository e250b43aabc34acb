//! Settings of topics and of the broker: described, changed one by one or all together, in force at once.

use anyhow::Context as _;
use highwater_protocol::ErrorCode;
use highwater_protocol::api::alter_configs::{self, AlterConfigsRequest};
use highwater_protocol::api::describe_configs::{DescribeConfigsRequest, DescribeConfigsResource};
use highwater_protocol::api::incremental_alter_configs::{
    AlterConfigsResource, AlterableConfig, IncrementalAlterConfigsRequest,
};
use highwater_protocol::wire::Str;

use super::{BROKER, Served, TOPIC, done, named};
use crate::faults::batches::plain_batch;

const SET: i8 = 0;
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

impl Served {
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
    fn alter(&mut self, changes: &[Change<'_>]) -> anyhow::Result<(ErrorCode, String)> {
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
    let mut served = Served::start(&[])?;
    served.connection.create_topic("t", 1, &[("segment.bytes", "2097152")])?;

    let settings = served.settings("t")?;

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
        ("compression.type", "producer", 2),
        ("max.message.bytes", "1048588", 3),
        ("min.insync.replicas", "1", 3),
        ("retention.ms", "-1", 5),
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
    let mut served = Served::with_topic(1)?;
    let mut count = |keys: Option<&[&str]>| -> anyhow::Result<usize> {
        let resource = DescribeConfigsResource {
            resource_type: TOPIC,
            resource_name: "t".into(),
            configuration_keys: keys.map(|keys| keys.iter().map(|key| Str::from(*key)).collect()),
        };
        let request =
            DescribeConfigsRequest { resources: vec![resource], ..DescribeConfigsRequest::default() };
        let response = served.connection.call(1, &request)?;
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
    let mut served = Served::start(&["--durability", "os", "--partitions", "3"])?;
    served.connection.create_topic("t", 1, &[])?;

    let described = served.describe(BROKER, "1")?;

    let find = |name: &str| {
        let config = described.configs.iter().find(|config| config.name == name).cloned();
        config.map(|config| (config.value.map(String::from), config.config_source, config.read_only))
    };
    assert_eq!(find("durability"), Some((Some("os".to_owned()), 4, true)));
    assert_eq!(find("num.partitions"), Some((Some("3".to_owned()), 4, true)));
    assert_eq!(find("log.retention.ms"), Some((Some("-1".to_owned()), 5, true)));
    assert_eq!(find("node.id"), Some((Some("1".to_owned()), 5, true)));
    assert!(find("log.dirs").is_some());
    // The topic inherits it.
    let inherited = &served.settings("t")?["durability"];
    assert_eq!((inherited.value.as_deref(), inherited.config_source), (Some("os"), 4));
    Ok(())
}

#[test]
fn what_has_no_settings_is_described_as_empty_and_what_is_not_there_is_refused() -> anyhow::Result<()> {
    let mut served = Served::start(&[])?;
    for (kind, name) in [(BROKER, ""), (8, "1"), (16, "subscription"), (32, "group")] {
        let described = served.describe(kind, name)?;
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
        let described = served.describe(kind, name)?;
        assert_eq!(named(described.error_code), code, "{kind} {name}");
        assert!(described.error_message.is_some_and(|message| !message.is_empty()), "{kind} {name}");
    }
    Ok(())
}

#[test]
fn a_change_is_in_force_at_once_and_after_a_restart() -> anyhow::Result<()> {
    let mut served = Served::with_topic(1)?;
    let accepts = |served: &mut Served| -> anyhow::Result<bool> {
        Ok(served.connection.produce("t", 0, plain_batch(0, 1000))?.error_code == 0)
    };
    assert!(accepts(&mut served)?);

    assert_eq!(served.alter(&[(SET, "max.message.bytes", Some("500"))])?, done());
    assert!(!accepts(&mut served)?);

    served.kill()?;
    assert_eq!(served.setting("t", "max.message.bytes")?, "500");
    assert!(!accepts(&mut served)?);

    assert_eq!(served.alter(&[(DELETE, "max.message.bytes", None)])?, done());
    assert_eq!(served.setting("t", "max.message.bytes")?, "1048588");
    assert!(accepts(&mut served)?);
    Ok(())
}

#[test]
fn a_segment_rolls_at_a_size_that_was_set_while_it_was_written() -> anyhow::Result<()> {
    let mut served = Served::with_topic(1)?;
    for counter in 0..3 {
        assert_eq!(served.connection.produce("t", 0, plain_batch(counter, 600_000))?.error_code, 0);
    }
    assert_eq!(served.segments()?, 1);

    assert_eq!(served.alter(&[(SET, "segment.bytes", Some("1048576"))])?, done());
    assert_eq!(served.connection.produce("t", 0, plain_batch(3, 600_000))?.error_code, 0);

    assert_eq!(served.segments()?, 2);
    Ok(())
}

#[test]
fn records_appended_before_the_durability_rose_become_visible_and_durable() -> anyhow::Result<()> {
    let mut served = Served::start(&[])?;
    served.connection.create_topic("t", 1, &[("durability", "interval=3600000")])?;
    assert_eq!(served.connection.produce("t", 0, plain_batch(0, 100))?.error_code, 0);

    assert_eq!(served.alter(&[(SET, "durability", Some("fsync"))])?, done());
    // Waits for a sync, which the old setting would have put off for an hour.
    assert_eq!(served.connection.produce("t", 0, plain_batch(1, 100))?.error_code, 0);

    assert_eq!(served.connection.latest_offset("t", 0)?, Some(2));
    Ok(())
}

#[test]
fn lists_take_appended_values_and_lose_subtracted_ones() -> anyhow::Result<()> {
    let mut served = Served::with_topic(1)?;

    assert_eq!(served.alter(&[(APPEND, "cleanup.policy", Some("delete"))])?, done());
    assert_eq!(served.setting("t", "cleanup.policy")?, "delete");
    let (code, message) = served.alter(&[(APPEND, "cleanup.policy", Some("compact"))])?;
    assert_eq!(code, ErrorCode::InvalidConfig);
    assert!(message.contains("\"delete,compact\""), "{message}");
    let (code, message) = served.alter(&[(SUBTRACT, "cleanup.policy", Some("delete"))])?;
    assert_eq!(code, ErrorCode::InvalidConfig, "{message}");
    let (code, message) = served.alter(&[(APPEND, "segment.bytes", Some("1"))])?;
    assert_eq!(code, ErrorCode::InvalidConfig);
    assert!(message.contains("is no list"), "{message}");
    Ok(())
}

#[test]
fn changes_that_cannot_be_are_refused_and_change_nothing() -> anyhow::Result<()> {
    let mut served = Served::with_topic(1)?;
    let refused: [(&[Change<'_>], ErrorCode); 7] = [
        (&[(SET, "no.such.key", Some("1"))], ErrorCode::InvalidConfig),
        (&[(SET, "segment.bytes", Some("ten"))], ErrorCode::InvalidConfig),
        (&[(SET, "retention.ms", Some("1000"))], ErrorCode::InvalidConfig),
        (&[(SET, "segment.ms", None)], ErrorCode::InvalidRequest),
        (&[(9, "segment.ms", Some("1"))], ErrorCode::InvalidRequest),
        (&[(SET, "segment.ms", Some("1")), (DELETE, "segment.ms", None)], ErrorCode::InvalidRequest),
        // The first half would do.
        (&[(SET, "segment.ms", Some("1")), (SET, "segment.bytes", Some("1"))], ErrorCode::InvalidConfig),
    ];
    for (changes, code) in refused {
        let (found, message) = served.alter(changes)?;
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
            served.alter_with(resource(kind, name, &[(SET, "segment.ms", Some("1"))]), false)?;
        assert_eq!(found, code, "{kind} {name}: {message}");
    }
    assert_eq!(served.setting("t", "segment.ms")?, "604800000");
    Ok(())
}

#[test]
fn names_and_values_of_any_length_are_refused_with_a_sentence() -> anyhow::Result<()> {
    let mut served = Served::with_topic(1)?;
    // Each quoted byte takes several.
    let long = "\u{1}".repeat(32_767);

    assert_eq!(served.alter(&[(SET, &long, Some("1"))])?.0, ErrorCode::InvalidConfig);
    assert_eq!(served.alter(&[(SET, "segment.ms", Some(&long))])?.0, ErrorCode::InvalidConfig);
    assert_eq!(served.alter(&[(SET, &long, None)])?.0, ErrorCode::InvalidRequest);
    assert_eq!(named(served.describe(TOPIC, &long)?.error_code), ErrorCode::InvalidTopicException);
    assert_eq!(named(served.describe(BROKER, &long)?.error_code), ErrorCode::InvalidRequest);
    for (name, setting, value) in
        [(long.as_str(), "segment.ms", "1"), ("u", &long, "1"), ("u", "segment.ms", &long)]
    {
        let refused = served.connection.create_topic(name, 1, &[(setting, value)]);
        let refused = format!("{:#}", refused.expect_err("the topic cannot be created"));
        assert!(refused.contains("was refused"), "the connection was closed: {}", &refused[..100]);
    }
    Ok(())
}

#[test]
fn deleting_what_is_not_set_is_nothing_to_do() -> anyhow::Result<()> {
    let mut served = Served::with_topic(1)?;
    let deletions: &[Change<'_>] =
        &[(DELETE, "leader.replication.throttled.rate", None), (DELETE, "flush.ms", None)];

    for (kind, name) in
        [(TOPIC, "t"), (BROKER, "1"), (BROKER, ""), (8, "1"), (16, "subscription"), (32, "group")]
    {
        assert_eq!(served.alter_with(resource(kind, name, deletions), false)?, done(), "{kind} {name}");
    }
    Ok(())
}

#[test]
fn a_change_that_is_only_checked_changes_nothing() -> anyhow::Result<()> {
    let mut served = Served::with_topic(1)?;

    let checked = served.alter_with(resource(TOPIC, "t", &[(SET, "segment.ms", Some("1"))]), true)?;
    let refused = served.alter_with(resource(TOPIC, "t", &[(SET, "segment.ms", Some("x"))]), true)?;

    assert_eq!(checked, done());
    assert_eq!(refused.0, ErrorCode::InvalidConfig);
    assert_eq!(served.setting("t", "segment.ms")?, "604800000");
    Ok(())
}

#[test]
fn a_resource_that_is_named_twice_is_refused_and_the_others_are_not() -> anyhow::Result<()> {
    let mut served = Served::with_topic(1)?;
    served.connection.create_topic("other", 1, &[])?;
    let change = |name| resource(TOPIC, name, &[(SET, "segment.ms", Some("1"))]);

    let request = IncrementalAlterConfigsRequest {
        resources: vec![change("t"), change("other"), change("t")],
        validate_only: false,
    };
    let response = served.connection.call(1, &request)?;

    let codes: Vec<_> = response.responses.iter().map(|answer| named(answer.error_code)).collect();
    assert_eq!(codes, [ErrorCode::InvalidRequest, ErrorCode::None, ErrorCode::InvalidRequest]);
    Ok(())
}

#[test]
fn replacing_drops_what_is_not_named() -> anyhow::Result<()> {
    let mut served = Served::with_topic(1)?;
    served.alter(&[(SET, "segment.ms", Some("5000")), (SET, "flush.ms", Some("7"))])?;

    assert_eq!(served.replace(&[("flush.ms", Some("8"))])?, done());

    assert_eq!(served.setting("t", "flush.ms")?, "8");
    assert_eq!(served.setting("t", "segment.ms")?, "604800000");
    assert_eq!(served.replace(&[("flush.ms", None)])?.0, ErrorCode::InvalidRequest);
    assert_eq!(
        served.replace(&[("flush.ms", Some("1")), ("flush.ms", Some("2"))])?.0,
        ErrorCode::InvalidRequest
    );
    assert_eq!(served.replace(&[("no.such.key", Some("1"))])?.0, ErrorCode::InvalidConfig);
    assert_eq!(served.setting("t", "flush.ms")?, "8");
    Ok(())
}

#[test]
fn racing_changes_do_not_lose_one_another() -> anyhow::Result<()> {
    let mut served = Served::with_topic(1)?;
    let address = served.broker.address();
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
        assert_eq!(served.setting("t", key)?, "1010", "{key}");
    }
    Ok(())
}
