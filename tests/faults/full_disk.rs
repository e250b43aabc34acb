//! A full disk is an error to those who write, nothing to those who read, and over when there is space again. What the broker
//! writes for itself goes on, out of a reserve; when that is gone too, it waits.
//!
//! `HIGHWATER_FULL_DISKS=n` does it n times on ext4 and xfs as well; 20 is the full count.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use highwater_protocol::ErrorCode;
use highwater_protocol::api::create_topics::{CreatableTopic, CreateTopicsRequest};
use highwater_protocol::api::delete_records::{
    DeleteRecordsPartition, DeleteRecordsRequest, DeleteRecordsTopic,
};
use highwater_protocol::api::produce::{PartitionProduceResponse, ProduceResponse};
use highwater_protocol::wire::Str;

use crate::harness::broker::{Broker, Options};
use crate::harness::metrics::{get, metric};
use crate::harness::skip::or_skip;
use crate::harness::wait;

use super::batches::plain_batch;
use super::client::{Connection, answers_of, name_of, produce_request};
use super::group_calls::{Group, OUTSIDER};
use super::history::{History, Placed, Stamp, check};
use super::mounts::{FileSystem, Mount, can_mount, can_mount_images};
use super::reader::read_all;
use super::setting::count;

const TOPIC: &str = "full";
/// A topic to delete from, and then to delete.
const SPARE: &str = "spare";
const VALUE_BYTES: usize = 64 << 10;
/// How soon writes must go on when there is space.
pub(super) const RESUME_DEADLINE: Duration = Duration::from_secs(5);
const FULL: &str = "highwater_disk_state{state=\"full\"}";

/// A broker on a disk of its own that has little room.
struct Cramped {
    broker: Broker,
    connection: Connection,
    history: History,
    counter: u32,
    ballast: PathBuf,
    // Unmounted after the broker is gone.
    _disk: Mount,
    _directory: tempfile::TempDir,
}

impl Cramped {
    fn start(
        disk: impl FnOnce(&Path) -> anyhow::Result<Mount>,
        ballast_bytes: u64,
        flags: &[&str],
    ) -> anyhow::Result<Self> {
        let directory = tempfile::tempdir()?;
        let point = directory.path().join("disk");
        let disk = disk(&point)?;
        let ballast = point.join("ballast");
        fill(&ballast, ballast_bytes)?;
        // The log is beside the disk.
        let broker = Broker::start(Options::new(&point).flags(flags))?;
        let mut connection = Connection::open(broker.address())?;
        connection.create_topic(TOPIC, 1, &[])?;
        connection.create_topic(SPARE, 1, &[])?;
        let history = History::default();
        let mut cramped =
            Self { broker, connection, history, counter: 0, ballast, _disk: disk, _directory: directory };
        for counter in 0..3 {
            let answer = cramped.connection.produce(SPARE, 0, plain_batch(counter, 100))?;
            ensure!(answer.error_code == 0, "{answer:?}");
        }
        ensure!(cramped.commit(1)? == "NONE", "the commit before");
        Ok(cramped)
    }

    fn produce(&mut self) -> anyhow::Result<PartitionProduceResponse> {
        let counter = self.counter;
        self.counter += 1;
        let answer = self.connection.produce(TOPIC, 0, plain_batch(counter, VALUE_BYTES))?;
        if answer.error_code == 0 {
            let stamp = Some(Stamp { session: 0, counter });
            self.history.acked.push(Placed { partition: 0, offset: answer.base_offset, key: 0, stamp });
        }
        Ok(answer)
    }

    /// Produces until the disk is full; what is answered then.
    fn produce_until_full(&mut self) -> anyhow::Result<String> {
        for _ in 0..10_000 {
            let answer = self.produce()?;
            if answer.error_code != 0 {
                let code = name_of(answer.error_code);
                ensure!(
                    answer.error_code == ErrorCode::KafkaStorageError.code(),
                    "a full disk is answered {code}"
                );
                return Ok(answer.error_message.context("a refusal has a sentence")?.to_string());
            }
        }
        anyhow::bail!("the disk is endless")
    }

    fn commit(&mut self, offset: i64) -> anyhow::Result<&'static str> {
        let group = Group { name: "readers".into(), topic: SPARE.into(), partitions: 1 };
        let answers = group.commit(&mut self.connection, OUTSIDER, &[(0, offset)])?;
        Ok(name_of(*answers.get(&0).context("the answer names the partition")?))
    }

    /// What deleting records of the spare topic is answered.
    fn delete_records(&mut self) -> anyhow::Result<&'static str> {
        let partition = DeleteRecordsPartition { partition_index: 0, offset: 2 };
        let topic = DeleteRecordsTopic { name: SPARE.into(), partitions: vec![partition] };
        let request = DeleteRecordsRequest { topics: vec![topic], timeout_ms: 30_000 };
        let answer = self.connection.call(2, &request)?;
        let deleted = answer.topics.first().and_then(|topic| topic.partitions.first());
        Ok(name_of(deleted.context("the answer names the partition")?.error_code))
    }

    fn address(&self) -> std::net::SocketAddr {
        self.broker.address()
    }

    /// Gives space back and produces until a record is taken.
    fn resume(&mut self) -> anyhow::Result<()> {
        std::fs::remove_file(&self.ballast)?;
        let freed = Instant::now();
        while self.produce()?.error_code != 0 {
            ensure!(
                freed.elapsed() < RESUME_DEADLINE,
                "no write within {RESUME_DEADLINE:?}:\n{}",
                self.broker.log()
            );
        }
        Ok(())
    }

    /// Everything acknowledged is there, now and after a kill.
    fn check(&mut self) -> anyhow::Result<()> {
        let verdict = check(&self.history, &read_all(self.address(), TOPIC, 1)?);
        ensure!(verdict.is_clean(), "while it runs: {verdict}");
        self.broker.kill()?;
        self.broker.restart()?;
        let verdict = check(&self.history, &read_all(self.address(), TOPIC, 1)?);
        ensure!(verdict.is_clean(), "after a restart: {verdict}");
        Ok(())
    }
}

/// Makes a file that takes so many bytes of the disk, or what there is of them.
pub(super) fn fill(path: &Path, bytes: u64) -> anyhow::Result<()> {
    use std::io::Write as _;
    let mut file = std::fs::OpenOptions::new().append(true).create(true).open(path)?;
    for piece in [64 << 10, 4 << 10] {
        let piece = vec![0xff; piece];
        let mut written = 0;
        while written < bytes && file.write_all(&piece).is_ok() {
            written += piece.len() as u64;
        }
        if written >= bytes {
            return Ok(());
        }
    }
    Ok(())
}

fn check_reserve(
    disk: impl FnOnce(&Path) -> anyhow::Result<Mount>,
    ballast_bytes: u64,
) -> anyhow::Result<()> {
    let mut cramped = Cramped::start(disk, ballast_bytes, &[])?;
    let address = cramped.address();

    let refusal = cramped.produce_until_full()?;
    let data = cramped.broker.data().display().to_string();
    for part in [&*data, "--disk-reserve", "Delete topics or records, or add space", "are free"] {
        ensure!(refusal.contains(part), "{part:?} is not in {refusal:?}");
    }
    wait::until("the state", || Ok(metric(address, FULL)? == 1))?;
    ensure!(get(address, "/readyz")?.contains("\"disk_full\":\"the disk of "), "/readyz does not say it");
    for _ in 0..10 {
        let code = name_of(cramped.produce()?.error_code);
        ensure!(code == "KAFKA_STORAGE_ERROR", "while the disk is full: {code}");
    }
    let served = read_all(address, TOPIC, 1)?.len();
    ensure!(served == cramped.history.acked.len(), "{served} records are served");
    // These are written down, each in its own log.
    assert_eq!(cramped.commit(2)?, "NONE");
    assert_eq!(cramped.delete_records()?, "NONE");
    cramped.connection.delete_topic(SPARE)?;
    let said = cramped.broker.log().matches("is full: ").count();
    ensure!(said == 1, "it was said {said} times:\n{}", cramped.broker.log());

    cramped.resume()?;

    wait::until("the state", || Ok(metric(address, FULL)? == 0))?;
    ensure!(!get(address, "/readyz")?.contains("disk_full"), "/readyz still says it");
    ensure!(cramped.broker.log().contains("there is space again"), "{}", cramped.broker.log());
    cramped.check()
}

#[test]
fn a_full_disk_refuses_writes_serves_reads_and_recovers_without_a_restart() -> anyhow::Result<()> {
    if or_skip(can_mount())?.is_none() {
        return Ok(());
    }
    check_reserve(|point| Mount::tmpfs(8 << 20, point), 3 << 20)?;
    for _ in 0..count("HIGHWATER_FULL_DISKS", 0)? {
        if or_skip(can_mount_images())?.is_none() {
            return Ok(());
        }
        check_reserve(|point| Mount::image_of(32 << 20, FileSystem::Ext4, point), 8 << 20)?;
        check_reserve(|point| Mount::image_of(320 << 20, FileSystem::Xfs, point), 128 << 20)?;
    }
    Ok(())
}

#[test]
fn without_a_reserve_nothing_dies_of_a_disk_that_is_full_to_the_last_page() -> anyhow::Result<()> {
    if or_skip(can_mount())?.is_none() {
        return Ok(());
    }
    let disk = |point: &Path| Mount::tmpfs(8 << 20, point);
    let mut cramped = Cramped::start(disk, 3 << 20, &["--disk-reserve", "0"])?;
    let address = cramped.address();
    let refusal = cramped.produce_until_full()?;
    ensure!(refusal.contains("a write found no space"), "{refusal}");
    fill(&cramped.ballast.clone(), u64::MAX)?;

    // What the log of a group has reserved may take some commits yet.
    let commits = (2..).find_map(|offset| match cramped.commit(offset) {
        Ok("NONE") if offset < 10_000 => None,
        answer => Some(answer),
    });
    let commits = commits.context("commits are endless")?.with_context(|| cramped.broker.log())?;
    assert_eq!(commits, "COORDINATOR_NOT_AVAILABLE");
    let topic = CreatableTopic { num_partitions: 1, replication_factor: 1, ..CreatableTopic::default() };
    let names =
        (0..1000).map(|number| CreatableTopic { name: Str::from(format!("new{number}")), ..topic.clone() });
    let request = CreateTopicsRequest { topics: names.collect(), ..CreateTopicsRequest::default() };
    let answer = cramped.connection.call(7, &request).with_context(|| cramped.broker.log())?;
    let refused = answer.topics.into_iter().find(|topic| topic.error_code != 0);
    let refused = refused.context("1000 topics fit on a full disk")?;
    ensure!(refused.error_message.is_some(), "no sentence: {refused:?}");
    ensure!(
        get(address, "/livez").is_ok() && get(address, "/readyz")?.contains("disk_full"),
        "it does not say so"
    );
    let served = read_all(address, TOPIC, 1)?.len();
    ensure!(served == cramped.history.acked.len(), "{served} records are served");

    cramped.resume()?;

    wait::until("commits to go on", || Ok(cramped.commit(9)? == "NONE"))?;
    let log = cramped.broker.log();
    ensure!(!log.contains("its partition is loaded again"), "groups were unloaded:\n{log}");
    cramped.check()
}

#[test]
fn a_log_on_the_full_disk_loses_lines_and_nothing_else() -> anyhow::Result<()> {
    if or_skip(can_mount())?.is_none() {
        return Ok(());
    }
    let directory = tempfile::tempdir()?;
    let point = directory.path().join("disk");
    let _disk = Mount::tmpfs(8 << 20, &point)?;
    let mut options = Options::new(&point).flags(&["--disk-reserve", "0"]);
    let onto_the_disk = format!("exec \"$@\" 2>> '{}'", point.join("log").display());
    options.wrapper = vec!["sh".to_owned(), "-c".to_owned(), onto_the_disk, "sh".to_owned()];
    let broker = Broker::start(options)?;
    let mut connection = Connection::open(broker.address())?;
    fill(&point.join("ballast"), u64::MAX)?;
    let lines = |path: &Path| std::fs::read_to_string(path).map(|log| log.lines().count());
    let before = lines(&point.join("log"))?;

    // Each is a line in the log, until its last page is full.
    let mut created = 0;
    while connection.create_topic(&format!("topic{created}"), 1, &[]).is_ok() {
        created += 1;
    }

    let after = lines(&point.join("log"))?;
    ensure!(after - before < created, "all of {created} lines were written");
    ensure!(get(broker.address(), "/livez")?.ends_with("ok\n"), "/livez");
    std::fs::remove_file(point.join("ballast"))?;
    connection.create_topic("late", 1, &[])?;
    Ok(())
}

#[test]
fn a_version_that_does_not_know_storage_errors_is_told_not_leader() -> anyhow::Result<()> {
    if or_skip(can_mount())?.is_none() {
        return Ok(());
    }
    let mut cramped = Cramped::start(|point| Mount::tmpfs(8 << 20, point), 3 << 20, &[])?;
    cramped.produce_until_full()?;

    for (version, code) in [(3, ErrorCode::NotLeaderOrFollower), (4, ErrorCode::KafkaStorageError)] {
        let request = produce_request(TOPIC, [(0, plain_batch(0, 10))]);
        cramped.connection.send(version, &request)?;
        let (_, response) = cramped.connection.receive::<ProduceResponse>(version)?;
        assert_eq!(answers_of(response)[0].error_code, code.code(), "version {version}");
    }
    Ok(())
}
