//! Whose settings a request names, what they are, and why most of them stay as they are.
//!
//! Topics have settings that can be changed; those of the broker are given at its start. Loggers, metrics of clients
//! and groups have none here. Knows Kafka's numbers for resources and sources, and no message.

use highwater_protocol::ErrorCode;
use highwater_record::TopicName;

use crate::broker::{Broker, NODE_ID};
use crate::config::Config;
use crate::config_keys::{BROKER_KEYS, BrokerKey, DURABILITY, TOPIC_KEYS, TopicKey, ValueType};
use crate::refusal::{Refusal, refuse};
use crate::topic_config::forced_durability;
use crate::topics::Topic;

/// What can have settings, with Kafka's numbers (`ConfigResource.Type`).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(i8)]
pub(crate) enum ResourceType {
    Topic = 2,
    Broker = 4,
    BrokerLogger = 8,
    ClientMetrics = 16,
    Group = 32,
}

impl ResourceType {
    pub(crate) const ALL: [Self; 5] =
        [Self::Topic, Self::Broker, Self::BrokerLogger, Self::ClientMetrics, Self::Group];

    /// The type with this number.
    pub(crate) fn from_code(code: i8) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.code() == code)
    }

    /// The number on the wire.
    pub(crate) const fn code(self) -> i8 {
        self as i8
    }
}

/// Where a value comes from, with Kafka's numbers (`DescribeConfigsResponse.ConfigSource`).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(i8)]
pub(crate) enum Source {
    Topic = 1,
    StaticBroker = 4,
    Default = 5,
}

/// Whose settings.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Resource {
    Topic(TopicName),
    /// This broker.
    Broker,
    /// What holds for every broker unless it says otherwise itself.
    EveryBroker,
    Loggers,
    ClientMetrics,
    Group,
}

/// A setting as it is described.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Described {
    pub(crate) name: &'static str,
    pub(crate) value: Option<String>,
    pub(crate) value_type: ValueType,
    pub(crate) read_only: bool,
    /// Every setting that could give the value, the one that does first.
    pub(crate) synonyms: Vec<Synonym>,
    pub(crate) documentation: &'static str,
}

/// A setting that could give a value.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Synonym {
    pub(crate) name: &'static str,
    pub(crate) value: String,
    pub(crate) source: Source,
}

impl Described {
    /// Where the value comes from.
    pub(crate) fn source(&self) -> Source {
        self.synonyms.first().map_or(Source::Default, |synonym| synonym.source)
    }
}

impl Resource {
    /// Reads type and name as they stand in a request.
    pub(crate) fn parse(code: i8, name: &str) -> Result<Self, Refusal> {
        let invalid = |message: String| refuse(ErrorCode::InvalidRequest, message);
        let Some(kind) = ResourceType::from_code(code) else {
            return Err(invalid(format!("there is no type of resource with number {code}")));
        };
        match kind {
            ResourceType::Topic => {
                let name = TopicName::new(name);
                name.map(Self::Topic).map_err(|error| refuse(ErrorCode::InvalidTopicException, error))
            }
            ResourceType::Broker if name.is_empty() => Ok(Self::EveryBroker),
            ResourceType::Broker => this_broker(name).map(|()| Self::Broker),
            ResourceType::BrokerLogger => this_broker(name).map(|()| Self::Loggers),
            ResourceType::ClientMetrics | ResourceType::Group if name.is_empty() => {
                Err(invalid("a subscription of client metrics or a group needs a name".to_owned()))
            }
            ResourceType::ClientMetrics => Ok(Self::ClientMetrics),
            ResourceType::Group => Ok(Self::Group),
        }
    }

    /// The topic whose settings are to be changed. Where nothing can be set there is nothing to do if nothing is; else
    /// it is refused.
    pub(crate) fn topic_to_change(self, sets_something: bool) -> Result<Option<TopicName>, Refusal> {
        let why = match self {
            Self::Topic(name) => return Ok(Some(name)),
            _ if !sets_something => return Ok(None),
            Self::Broker | Self::EveryBroker => {
                "settings of the broker are given by the flags of `highwater serve` and change with a restart; topics \
                 have settings of their own that change at once"
            }
            Self::Loggers => "log levels are given by HIGHWATER_LOG and change with a restart",
            Self::ClientMetrics => "there are no subscriptions of client metrics here",
            Self::Group => "groups have no settings here",
        };
        Err(refuse(ErrorCode::InvalidRequest, why))
    }

    /// Every setting there is.
    pub(crate) fn describe(&self, broker: &Broker) -> Result<Vec<Described>, Refusal> {
        match self {
            Self::Topic(name) => {
                let unknown = || format!("there is no topic {:?}", name.as_str());
                let topic = broker.topics.by_name(name);
                let topic = topic.ok_or_else(|| refuse(ErrorCode::UnknownTopicOrPartition, unknown()))?;
                Ok(TOPIC_KEYS.iter().map(|key| topic_setting(key, &topic, broker.config())).collect())
            }
            Self::Broker => Ok(broker_settings(broker.config())),
            // Nothing was set for all brokers at run time, and the others have nothing to set.
            Self::EveryBroker | Self::Loggers | Self::ClientMetrics | Self::Group => Ok(Vec::new()),
        }
    }
}

/// Refuses every name of a broker but this one's.
fn this_broker(name: &str) -> Result<(), Refusal> {
    // To the letter: one broker must not have many names.
    if name == NODE_ID.to_string() {
        return Ok(());
    }
    let message = format!("{name:?} is not this broker, whose id is {NODE_ID}");
    Err(refuse(ErrorCode::InvalidRequest, message))
}

fn topic_setting(key: &TopicKey, topic: &Topic, broker: &Config) -> Described {
    let forced = forced_durability(&topic.name, broker.durability).filter(|_| key.name == DURABILITY);
    let set = forced.map(|forced| forced.to_string()).or_else(|| topic.record.configs.get(key.name).cloned());
    let own = set.clone().map(|value| Synonym { name: key.name, value, source: Source::Topic });
    let inherited = key.broker_name.map(|_| broker_synonyms_of(key, broker));
    Described {
        name: key.name,
        value: Some(set.unwrap_or_else(|| key.default_value(broker))),
        value_type: key.value,
        read_only: key.is_fixed(),
        synonyms: own.into_iter().chain(inherited.into_iter().flatten()).collect(),
        documentation: key.documentation,
    }
}

/// The settings of the broker that give a topic's default.
fn broker_synonyms_of(key: &TopicKey, broker: &Config) -> Vec<Synonym> {
    let Some(name) = key.broker_name else { return Vec::new() };
    match BROKER_KEYS.iter().find(|own| own.name == name) {
        Some(own) => broker_synonyms(own, broker),
        None => vec![Synonym { name, value: key.default_value(broker), source: Source::Default }],
    }
}

/// What gives the value of a broker's setting: the start, if it differs from the default, and the default.
fn broker_synonyms(key: &BrokerKey, broker: &Config) -> Vec<Synonym> {
    // The data directory has no default here: it is the same in both, and so looks like one.
    let (now, default) = ((key.shown)(broker), (key.shown)(&Config::new(broker.data.clone())));
    let given = now.filter(|now| Some(now) != default.as_ref());
    let given = given.map(|value| Synonym { name: key.name, value, source: Source::StaticBroker });
    let default = default.map(|value| Synonym { name: key.name, value, source: Source::Default });
    given.into_iter().chain(default).collect()
}

fn broker_settings(broker: &Config) -> Vec<Described> {
    let own = BROKER_KEYS.iter().map(|key| Described {
        name: key.name,
        value: (key.shown)(broker),
        value_type: key.value,
        read_only: true,
        synonyms: broker_synonyms(key, broker),
        documentation: key.documentation,
    });
    let mut settings: Vec<_> = own.collect();
    for key in TOPIC_KEYS {
        let Some(name) = key.broker_name.filter(|name| settings.iter().all(|own| own.name != *name)) else {
            continue;
        };
        settings.push(Described {
            name,
            value: Some(key.default_value(broker)),
            value_type: key.value,
            read_only: true,
            synonyms: broker_synonyms_of(key, broker),
            documentation: key.documentation,
        });
    }
    settings.sort_unstable_by_key(|setting| setting.name);
    settings
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Durability;

    #[test]
    fn a_resource_is_named_by_type_and_name() {
        assert_eq!(Resource::parse(4, ""), Ok(Resource::EveryBroker));
        assert_eq!(Resource::parse(4, "1"), Ok(Resource::Broker));
        for (code, name) in
            [(4, "2"), (4, "01"), (4, "one"), (8, ""), (16, ""), (32, ""), (0, "x"), (64, "x")]
        {
            assert_eq!(
                Resource::parse(code, name).unwrap_err().code,
                ErrorCode::InvalidRequest,
                "{code} {name}"
            );
        }
        assert_eq!(Resource::parse(2, "a/b").unwrap_err().code, ErrorCode::InvalidTopicException);
    }

    #[test]
    fn a_value_given_at_the_start_stands_before_its_default() {
        let mut broker = Config::new("data".into());
        broker.durability = Durability::Os;

        let settings = broker_settings(&broker);

        let durability = settings.iter().find(|setting| setting.name == "durability").unwrap();
        assert_eq!((durability.value.as_deref(), durability.source()), (Some("os"), Source::StaticBroker));
        assert_eq!(durability.synonyms[1].value, "fsync");
        let size = settings.iter().find(|setting| setting.name == "log.segment.bytes").unwrap();
        assert_eq!((size.value.as_deref(), size.source()), (Some("1073741824"), Source::Default));
    }

    #[test]
    fn settings_of_the_broker_occur_once() {
        let settings = broker_settings(&Config::new("data".into()));
        let names: Vec<_> = settings.iter().map(|setting| setting.name).collect();

        assert!(names.is_sorted_by(|one, next| one < next), "{names:?}");
    }
}
