//! Somebody who creates a topic, writes to it, reads it and deletes it, again and again under one name.
//!
//! What must hold, through restarts: a topic whose creation was acknowledged is there, one whose deletion was
//! acknowledged is not, and a new one has a new id and none of the records of those before it.

use std::collections::HashSet;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use highwater_protocol::ErrorCode;
use highwater_protocol::api::create_topics::{CreatableTopic, CreateTopicsRequest};
use highwater_protocol::api::delete_topics::DeleteTopicsRequest;
use highwater_protocol::wire::Uuid;

use super::batches::plain_batch;
use super::client::{Connection, is_lost_connection, name_of};
use super::gate::{Gate, Order, STUCK};
use super::reader::{placed, split};

/// The name of all its topics.
const TOPIC: &str = "room";
/// The pause after an error that asks for a retry.
const BACKOFF: Duration = Duration::from_millis(20);
/// Batches in a topic's life.
const BATCHES: u32 = 3;

/// What is known of the topic.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Standing {
    Gone,
    /// Its creation was not answered.
    Creating,
    /// It has so many batches for certain.
    There(u32),
    /// Its deletion was not answered.
    Deleting,
}

/// One administrator.
pub(crate) struct Administrator {
    address: SocketAddr,
    gate: Arc<Gate>,
    standing: Standing,
    ids: HashSet<Uuid>,
    /// The number of the next record.
    next_counter: u32,
    /// The number of the first record that this topic may hold.
    first_counter: u32,
    /// The records of this topic that were acknowledged.
    acked: Vec<u32>,
}

impl Administrator {
    /// Somebody who has done nothing.
    pub(crate) fn new(address: SocketAddr, gate: Arc<Gate>) -> Self {
        Self {
            address,
            gate,
            standing: Standing::Gone,
            ids: HashSet::new(),
            next_counter: 0,
            first_counter: 0,
            acked: Vec::new(),
        }
    }

    /// Works until the campaign is over.
    pub(crate) fn run(mut self) -> anyhow::Result<()> {
        let worked = self.work_through_restarts();
        if worked.is_err() {
            self.gate.fail();
        }
        worked.context("administrator")
    }

    fn work_through_restarts(&mut self) -> anyhow::Result<()> {
        let mut last_reached = Instant::now();
        while self.gate.order() != Order::Abandon {
            match Connection::watched(self.address, &self.gate) {
                Ok(mut connection) => {
                    last_reached = Instant::now();
                    while self.gate.order() != Order::Abandon {
                        match self.step(&mut connection) {
                            Ok(()) => {}
                            Err(error) if is_lost(&error) => break,
                            Err(error) => return Err(error),
                        }
                    }
                }
                Err(_) if last_reached.elapsed() < STUCK => {}
                Err(error) => return Err(error).context("no broker"),
            }
            self.gate.wait_past(self.gate.incarnation(), BACKOFF);
        }
        Ok(())
    }

    fn step(&mut self, connection: &mut Connection) -> anyhow::Result<()> {
        self.gate.wait_while_frozen();
        match self.standing {
            Standing::Gone | Standing::Creating => self.create(connection),
            Standing::There(batches) if batches < BATCHES => self.write(connection, batches),
            Standing::There(_) => {
                self.read(connection)?;
                self.delete(connection)
            }
            Standing::Deleting => self.delete(connection),
        }
    }

    fn create(&mut self, connection: &mut Connection) -> anyhow::Result<()> {
        let before = std::mem::replace(&mut self.standing, Standing::Creating);
        if before == Standing::Gone {
            self.first_counter = self.next_counter;
            self.acked.clear();
        }
        let topic = CreatableTopic {
            name: TOPIC.into(),
            num_partitions: 1,
            replication_factor: 1,
            ..CreatableTopic::default()
        };
        let request = CreateTopicsRequest { topics: vec![topic], ..CreateTopicsRequest::default() };
        let answer = connection.call(7, &request)?.topics.pop().context("the answer names the topic")?;
        match ErrorCode::from_code(answer.error_code) {
            Some(ErrorCode::None) => {
                ensure!(self.ids.insert(answer.topic_id), "the id {:?} is given again", answer.topic_id);
                self.standing = Standing::There(0);
            }
            // The creation that was not answered.
            Some(ErrorCode::TopicAlreadyExists) if before == Standing::Creating => {
                self.standing = Standing::There(0);
            }
            Some(ErrorCode::TopicAlreadyExists) => bail!("a deleted topic is there again"),
            _ => self.put_off("a creation", answer.error_code)?,
        }
        Ok(())
    }

    fn write(&mut self, connection: &mut Connection, batches: u32) -> anyhow::Result<()> {
        let counter = self.next_counter;
        self.next_counter += 1;
        let answer = connection.produce(TOPIC, 0, plain_batch(counter, 100))?;
        if answer.error_code == 0 {
            self.acked.push(counter);
            self.standing = Standing::There(batches + 1);
            return Ok(());
        }
        self.put_off("a write", answer.error_code)
    }

    /// Everything that was acknowledged is there, and nothing from before.
    fn read(&self, connection: &mut Connection) -> anyhow::Result<()> {
        let data = connection.fetch(TOPIC, 0, 0)?;
        if data.error_code != 0 {
            return self.put_off("a read", data.error_code);
        }
        let mut found = Vec::new();
        for batch in split(data.records.bytes().cloned().unwrap_or_default())? {
            found.extend(placed(&batch, 0)?.into_iter().filter_map(|record| record.stamp));
        }
        let found: Vec<u32> = found.into_iter().map(|stamp| stamp.counter).collect();
        let old: Vec<&u32> = found.iter().filter(|counter| **counter < self.first_counter).collect();
        ensure!(old.is_empty(), "records {old:?} of a deleted topic are there again");
        let lost: Vec<&u32> = self.acked.iter().filter(|counter| !found.contains(counter)).collect();
        ensure!(lost.is_empty(), "acknowledged records {lost:?} are not among {found:?}");
        Ok(())
    }

    fn delete(&mut self, connection: &mut Connection) -> anyhow::Result<()> {
        let before = std::mem::replace(&mut self.standing, Standing::Deleting);
        let request =
            DeleteTopicsRequest { topic_names: vec![TOPIC.into()], ..DeleteTopicsRequest::default() };
        let answer = connection.call(4, &request)?.responses.pop().context("the answer names the topic")?;
        match ErrorCode::from_code(answer.error_code) {
            Some(ErrorCode::None) => self.standing = Standing::Gone,
            // The deletion that was not answered.
            Some(ErrorCode::UnknownTopicOrPartition) if before == Standing::Deleting => {
                self.standing = Standing::Gone;
            }
            Some(ErrorCode::UnknownTopicOrPartition) => bail!("a topic is not there that was created"),
            _ => self.put_off("a deletion", answer.error_code)?,
        }
        Ok(())
    }

    /// Waits a little if the answer asks for it.
    fn put_off(&self, what: &str, code: i16) -> anyhow::Result<()> {
        match ErrorCode::from_code(code) {
            Some(
                ErrorCode::NotLeaderOrFollower
                | ErrorCode::LeaderNotAvailable
                | ErrorCode::KafkaStorageError
                | ErrorCode::NotController
                | ErrorCode::RequestTimedOut,
            ) => {
                self.gate.wait_past(self.gate.incarnation(), BACKOFF);
                Ok(())
            }
            _ => bail!("{what} is answered {} while the topic is {:?}", name_of(code), self.standing),
        }
    }
}

/// Whether the connection broke.
fn is_lost(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(is_lost_connection)
}
