//! `highwater produce`: records from a file or stdin to a topic.
//!
//! Idempotent and repeated on errors by default, so that each record arrives once and in its order. stdout stays
//! empty; one line on stderr says what was acknowledged, and one what is tried again.

use std::fs::File;
use std::io::{self, IsTerminal};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use highwater_client::{
    Acks, Client, ClientError, OutgoingRecord, PartitionSummary, ProduceError, Producer, ProducerConfig,
    RetryObserver, SendError,
};
use highwater_record::{Codec, NewRecord, PartitionId, TopicName};

use crate::bootstrap::{Bootstrap, BootstrapArgs};
use crate::failure::{Failure, INTERRUPTED};
use crate::input::{self, InputHeader, InputRecord, Parser};
use crate::output::note;
use crate::{resolve, time};

const EXAMPLES: &str = "\
Examples:
  tail -F app.log | highwater produce logs            one record per line
  highwater produce orders -k customer-7 -H source=shop order.json
  highwater produce orders -f '%k: %v\\n' < pairs.txt
  highwater consume orders --output jsonl -e | highwater produce copy --input jsonl -z zstd
";

/// Partitions that the summary names.
const SUMMARY_PARTITIONS_MAX: usize = 8;

/// The arguments of `highwater produce`.
#[derive(Debug, clap::Args)]
#[command(before_help = EXAMPLES)]
pub(crate) struct ProduceArgs {
    /// The topic
    topic: String,
    /// What to read; - is stdin
    #[arg(default_value = "-")]
    file: PathBuf,
    /// Key of every record that has none of its own
    #[arg(short, long)]
    key: Option<String>,
    /// Header of every record; may be given several times
    #[arg(short = 'H', long = "header", value_name = "KEY=VALUE", value_parser = parse_header)]
    headers: Vec<(String, String)>,
    /// How to compress batches
    #[arg(short = 'z', long, value_enum, default_value_t = CodecArg::None, value_name = "CODEC")]
    compression: CodecArg,
    /// What to read, by rpk's verbs %k %v %p %d, each up to the text that follows it
    #[arg(short, long, value_name = "FORMAT", conflicts_with = "input")]
    format: Option<String>,
    /// What a line is: the value of a record, or a record in JSON as consume --output jsonl prints it
    #[arg(long, value_enum, default_value_t = InputArg::Raw)]
    input: InputArg,
    /// The partition to send to [default: by key, or one after another]
    #[arg(short, long, value_name = "N", allow_negative_numbers = true)]
    #[arg(value_parser = clap::value_parser!(i32).range(0..))]
    partition: Option<i32>,
    /// Send JSON records to the partition that they name
    #[arg(long, conflicts_with = "partition")]
    keep_partition: bool,
    /// Who must have a record: all in-sync replicas, the leader (1), or nobody (0)
    #[arg(long, value_enum, default_value_t = AcksArg::All)]
    acks: AcksArg,
    /// Size at which a batch is sent, before compression
    #[arg(long, value_name = "BYTES", default_value_t = 1_000_000, allow_negative_numbers = true)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..))]
    batch_bytes: u32,
    /// How long a batch waits for more records
    #[arg(long, value_name = "MS", default_value_t = 5, allow_negative_numbers = true)]
    linger_ms: u32,
    /// Fail if the topic does not exist, instead of letting the broker create it
    #[arg(long)]
    no_create: bool,
    #[command(flatten)]
    bootstrap: BootstrapArgs,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum CodecArg {
    None,
    Gzip,
    Snappy,
    Lz4,
    Zstd,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, clap::ValueEnum)]
enum InputArg {
    Raw,
    Jsonl,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum AcksArg {
    #[value(alias = "-1")]
    All,
    #[value(name = "1", alias = "leader")]
    Leader,
    #[value(name = "0", alias = "none")]
    None,
}

/// What every record gets.
struct Stamp {
    topic: TopicName,
    key: Option<Vec<u8>>,
    headers: Vec<InputHeader>,
    partition: Option<PartitionId>,
    keep_partition: bool,
}

/// Why reading ended.
enum Ending {
    End,
    Interrupted,
    Fault(anyhow::Error),
}

/// Runs `highwater produce`.
pub(crate) async fn run(args: ProduceArgs) -> Result<ExitCode> {
    let begun = Instant::now();
    let bootstrap = args.bootstrap.resolve()?;
    let parser = match (&args.format, args.input) {
        (Some(format), _) => {
            Parser::format(format).map_err(|error| Failure::usage(format!("-f: {error}")))?
        }
        (None, InputArg::Raw) => Parser::lines(),
        (None, InputArg::Jsonl) => Parser::Jsonl,
    };
    let stamp = args.stamp()?;
    let client = bootstrap.client();
    prepare_topic(&client, &bootstrap, &stamp.topic, !args.no_create).await?;
    let mut records = if args.file.as_os_str() == "-" {
        if io::stdin().is_terminal() {
            note("reading records from the terminal, one per line; Ctrl-D ends");
        }
        input::start(io::stdin(), parser)?
    } else {
        let file = File::open(&args.file).with_context(|| format!("open {}", args.file.display()))?;
        input::start(file, parser)?
    };
    let producer = Producer::new(client, args.config());
    let ending = send_all(&producer, &stamp, &mut records).await;
    report(&stamp.topic, &producer.finish().await, begun.elapsed(), ending)
}

/// Makes sure that the topic exists, and says so if it is made for this.
async fn prepare_topic(
    client: &Client,
    bootstrap: &Bootstrap,
    topic: &TopicName,
    create: bool,
) -> Result<()> {
    if !create {
        resolve::find_topic(client, bootstrap, topic).await?;
        return Ok(());
    }
    let described = client.describe(std::slice::from_ref(topic)).await;
    let described = described.map_err(|error| bootstrap.explain(&error))?;
    if described
        .topics
        .get(topic)
        .is_some_and(|topic| matches!(topic, Err(error) if error.is_unknown_topic()))
    {
        if topic.is_internal() {
            return Err(Failure::not_found(format!(
                "topic {topic} does not exist, and no broker is asked to create it: names that begin with __ are for \
                 the broker's own topics; choose another name"
            ))
            .into());
        }
        note(format_args!("topic {topic} does not exist; the broker is asked to create it"));
        ask_for(client, bootstrap, topic).await?;
    }
    Ok(())
}

/// How long a broker may take to create a topic that it is asked for.
const CREATION_MAX: Duration = Duration::from_secs(5);
/// How often it is asked.
const CREATION_ASKED_EVERY: Duration = Duration::from_millis(100);

/// Asks for a topic until the broker has created it. One that does not is no reason to wait until records time out.
async fn ask_for(client: &Client, bootstrap: &Bootstrap, topic: &TopicName) -> Result<()> {
    let begun = Instant::now();
    loop {
        let described = client.describe_or_create(std::slice::from_ref(topic)).await;
        let described = described.map_err(|error| bootstrap.explain(&error))?;
        match described.topics.get(topic) {
            Some(Err(error)) if error.is_unknown_topic() && begun.elapsed() >= CREATION_MAX => {
                return Err(Failure::not_found(format!(
                    "the broker does not create topic {topic}: it may be told not to create topics that are asked for, \
                     or the topic was deleted a short while ago; create it with: highwater topic create {topic}"
                ))
                .into());
            }
            Some(Err(error)) if error.is_unknown_topic() => tokio::time::sleep(CREATION_ASKED_EVERY).await,
            // Whatever else is wrong is said when the records are sent.
            _ => return Ok(()),
        }
    }
}

async fn send_all(
    producer: &Producer,
    stamp: &Stamp,
    records: &mut tokio::sync::mpsc::Receiver<input::Bundle>,
) -> Ending {
    loop {
        let bundle = tokio::select! {
            bundle = records.recv() => bundle,
            _ = tokio::signal::ctrl_c() => return Ending::Interrupted,
        };
        match bundle {
            None => return Ending::End,
            Some(Err(error)) => return Ending::Fault(error),
            Some(Ok(bundle)) => {
                for record in &bundle {
                    if let Err(error) = stamp.send(producer, record).await {
                        return Ending::Fault(explain_send(error));
                    }
                }
            }
        }
        if producer.has_failed() {
            return Ending::End;
        }
    }
}

impl Stamp {
    async fn send(&self, producer: &Producer, record: &InputRecord) -> Result<(), SendError> {
        let headers: Vec<(&[u8], Option<&[u8]>)> = record
            .headers
            .iter()
            .chain(&self.headers)
            .map(|header| (header.key.as_slice(), header.value.as_deref()))
            .collect();
        let named = record.partition.filter(|_| self.keep_partition).and_then(PartitionId::new);
        let outgoing = OutgoingRecord {
            partition: self.partition.or(named),
            record: NewRecord {
                timestamp: record.timestamp.unwrap_or_else(time::now),
                key: record.key.as_deref().or(self.key.as_deref()),
                value: record.value.as_deref(),
                headers: &headers,
            },
        };
        // The summary tells what became of it.
        producer.send(&self.topic, &outgoing).await.map(|_| ())
    }
}

impl ProduceArgs {
    fn stamp(&self) -> Result<Stamp, Failure> {
        let header = |(key, value): &(String, String)| InputHeader {
            key: key.clone().into(),
            value: Some(value.clone().into()),
        };
        Ok(Stamp {
            topic: resolve::topic_name(&self.topic)?,
            key: self.key.clone().map(String::into_bytes),
            headers: self.headers.iter().map(header).collect(),
            partition: self.partition.and_then(PartitionId::new),
            // A format that reads partitions means them.
            keep_partition: self.keep_partition || self.format.is_some(),
        })
    }

    fn config(&self) -> ProducerConfig {
        ProducerConfig {
            acks: match self.acks {
                AcksArg::All => Acks::All,
                AcksArg::Leader => Acks::Leader,
                AcksArg::None => Acks::None,
            },
            codec: match self.compression {
                CodecArg::None => Codec::None,
                CodecArg::Gzip => Codec::Gzip,
                CodecArg::Snappy => Codec::Snappy,
                CodecArg::Lz4 => Codec::Lz4,
                CodecArg::Zstd => Codec::Zstd,
            },
            batch_bytes: self.batch_bytes as usize,
            linger: Duration::from_millis(self.linger_ms.into()),
            create_topics: !self.no_create,
            on_retry: Some(say_retries()),
            ..ProducerConfig::default()
        }
    }
}

/// Says what is tried again and why, once as long as the reason stays the same: it may take minutes.
fn say_retries() -> RetryObserver {
    let said = Mutex::new(String::new());
    RetryObserver::new(move |partition, error| {
        let reason = error.to_string();
        let mut said = said.lock().unwrap_or_else(PoisonError::into_inner);
        if *said != reason {
            let seconds = ProducerConfig::default().delivery_timeout.as_secs();
            let meaning = meaning(error);
            note(format_args!("{partition}: {reason}; it is tried again for up to {seconds} s{meaning}"));
            *said = reason;
        }
    })
}

fn explain_send(error: SendError) -> anyhow::Error {
    match &error {
        // The summary of the partition says why.
        SendError::Failed(_) => Failure::failed("the partition takes no more records").into(),
        SendError::NoPartition { .. } => Failure::not_found(error.to_string()).into(),
        SendError::Topic { .. } | SendError::Build(_) => error.into(),
    }
}

/// Says what was acknowledged, and what was not and why.
fn report(
    topic: &TopicName,
    partitions: &[PartitionSummary],
    elapsed: Duration,
    ending: Ending,
) -> Result<ExitCode> {
    note(summary_line(topic, partitions, elapsed));
    let failed: u64 = partitions.iter().map(|partition| partition.failed).sum();
    if let Some(error) = partitions.iter().find_map(|partition| partition.error.as_ref()) {
        let message = format!("{failed} records were not acknowledged: {error}{}", advice(error));
        return Err(Failure::failed(message).into());
    }
    match ending {
        Ending::End => Ok(ExitCode::SUCCESS),
        Ending::Interrupted => {
            note("interrupted: what was read is acknowledged, the rest of the input is not sent");
            Ok(ExitCode::from(INTERRUPTED))
        }
        Ending::Fault(error) => Err(error),
    }
}

fn summary_line(topic: &TopicName, partitions: &[PartitionSummary], elapsed: Duration) -> String {
    let records: u64 = partitions.iter().map(|partition| partition.records).sum();
    let used: Vec<&PartitionSummary> = partitions.iter().filter(|partition| partition.records > 0).collect();
    let mut spans: Vec<String> = used
        .iter()
        .take(SUMMARY_PARTITIONS_MAX)
        .map(|summary| {
            let partition = summary.partition.partition;
            match (summary.first, summary.last) {
                (Some(first), Some(last)) => format!("p{partition} {first}-{last}"),
                _ => format!("p{partition} {} records", summary.records),
            }
        })
        .collect();
    if used.len() > SUMMARY_PARTITIONS_MAX {
        spans.push(format!("and {} more", used.len() - SUMMARY_PARTITIONS_MAX));
    }
    let spans = if spans.is_empty() { String::new() } else { format!(" ({})", spans.join(", ")) };
    format!("{topic}: {records} records to {} partitions{spans} in {} ms", used.len(), elapsed.as_millis())
}

/// What an answer that has no sentence of its own means for somebody with one broker.
fn meaning(error: &ClientError) -> &'static str {
    match error {
        ClientError::Broker(error) if error.is_not_leader() && error.message.is_none() => {
            "\n  the broker does not serve the partition: its log could not be opened, or is still recovering; the broker's\n  \
             log and http://HOST:PORT/readyz say which, and  highwater segment verify DIR  looks at the partition's files"
        }
        _ => "",
    }
}

fn advice(error: &ProduceError) -> &'static str {
    match error {
        ProduceError::Expired { last, .. } => meaning(last),
        ProduceError::Refused { source, records, .. } if source.is_too_large() && *records > 1 => {
            "\n  send smaller batches:  --batch-bytes 500000"
        }
        ProduceError::Refused { source, .. } if source.is_too_large() => {
            "\n  one record is larger than the topic takes; its limit is the topic's max.message.bytes"
        }
        _ => "",
    }
}

fn parse_header(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) => Ok((key.to_owned(), value.to_owned())),
        None => Err("write KEY=VALUE, for example source=shop".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use highwater_client::BrokerError;
    use highwater_record::TopicPartition;

    use super::*;

    fn expired(last: BrokerError) -> ProduceError {
        let partition =
            TopicPartition { topic: TopicName::new("orders").unwrap(), partition: PartitionId::ZERO };
        ProduceError::Expired { partition, after: Duration::from_mins(2), last: last.into() }
    }

    #[test]
    fn a_partition_that_stayed_out_of_service_is_explained_unless_the_broker_does() {
        let bare = expired(BrokerError { code: 6, message: None });
        let told = expired(BrokerError { code: 6, message: Some("moved".into()) });

        assert!(advice(&bare).contains("the broker does not serve the partition"), "{}", advice(&bare));
        assert_eq!(advice(&told), "");
    }
}
