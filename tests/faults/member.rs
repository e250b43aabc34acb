//! A member of a group that does what Kafka's consumers do: join, sync, resume, fetch, process, commit, heartbeat.
//!
//! One thread, one connection, one request at a time. It writes what it does into the journal before the requests
//! that follow from it. A connection that breaks is opened again, by the same member in the same generation; what
//! the coordinator refuses is answered as the Java consumer does. It can be killed at any moment.

use std::collections::BTreeMap;
use std::io;
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use highwater_protocol::ErrorCode;
use highwater_protocol::wire::Str;

use super::client::{Connection, is_lost_connection, name_of};
use super::gate::Gate;
use super::group_calls::Group;
use super::group_journal::Journal;
use super::random::Random;
use super::reader::{placed, split};

/// The pause after an error that asks for a retry.
const BACKOFF: Duration = Duration::from_millis(20);
/// How often a member says that it is alive.
const HEARTBEAT_INTERVAL: Duration = Duration::from_millis(500);
/// After this long without a broker something is stuck.
const STUCK: Duration = Duration::from_secs(60);

/// What a member is told.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Told {
    Work,
    Leave,
    Die,
}

struct Orders {
    told: Told,
    socket: Option<TcpStream>,
    held: bool,
}

/// The handle by which a member is told to leave, stopped, or killed.
pub(crate) struct Seat {
    orders: Mutex<Orders>,
    changed: Condvar,
}

impl Seat {
    /// Of a member that works.
    pub(crate) const fn new() -> Self {
        let orders = Orders { told: Told::Work, socket: None, held: false };
        Self { orders: Mutex::new(orders), changed: Condvar::new() }
    }

    fn orders(&self) -> MutexGuard<'_, Orders> {
        self.orders.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends the member as kill -9 would: its connection closes without a word, what it has not finished is forgotten.
    pub(crate) fn kill(&self) {
        let mut orders = self.orders();
        orders.told = Told::Die;
        if let Some(socket) = orders.socket.take() {
            // A socket that is closed already is what is wanted.
            let _ = socket.shutdown(Shutdown::Both);
        }
        self.changed.notify_all();
    }

    /// Asks the member to leave the group and end.
    pub(crate) fn leave(&self) {
        self.orders().told = Told::Leave;
        self.changed.notify_all();
    }

    /// Stops the member where it is, as if stopped by a signal, or lets it go on.
    pub(crate) fn hold(&self, held: bool) {
        self.orders().held = held;
        self.changed.notify_all();
    }

    /// Waits while the member is held.
    fn wait_while_held(&self) {
        let orders = self.orders();
        drop(self.changed.wait_while(orders, |orders| orders.held && orders.told == Told::Work));
    }

    fn told(&self) -> Told {
        self.orders().told
    }

    /// A member has connected.
    fn take_socket(&self, socket: TcpStream) -> io::Result<()> {
        let mut orders = self.orders();
        if orders.told == Told::Die {
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        orders.socket = Some(socket);
        Ok(())
    }

    /// Waits for this long, less if the member is told something.
    fn pause(&self, duration: Duration) {
        let orders = self.orders();
        let working = |orders: &mut Orders| orders.told == Told::Work;
        drop(self.changed.wait_timeout_while(orders, duration, working));
    }
}

/// How a member works.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Habit {
    /// Commits what it has processed.
    Honest,
    /// Commits what it has fetched and not processed: a fault that the check must find.
    Hasty,
}

/// How far a member is in a partition.
#[derive(Clone, Copy, Debug)]
struct Position {
    next: i64,
    /// What is committed for certain.
    committed: i64,
}

/// Where a member stands towards its group.
#[derive(Debug)]
enum Standing {
    Outside,
    /// Assigned these partitions, without knowing where to begin.
    Assigned(Vec<i32>),
    Working(BTreeMap<i32, Position>),
}

/// Where a member works.
#[derive(Clone)]
pub(crate) struct Place {
    pub(crate) address: SocketAddr,
    pub(crate) group: Group,
    pub(crate) gate: Arc<Gate>,
}

/// One member.
pub(crate) struct Member {
    number: u32,
    habit: Habit,
    place: Place,
    seat: Arc<Seat>,
    journal: Arc<Journal>,
    random: Random,
    id: Str,
    generation: i32,
    standing: Standing,
    last_beat: Instant,
}

impl Member {
    /// A member that has not joined yet.
    pub(crate) fn new(
        number: u32,
        habit: Habit,
        place: Place,
        seat: Arc<Seat>,
        journal: Arc<Journal>,
    ) -> Self {
        Self {
            number,
            habit,
            place,
            seat,
            journal,
            random: Random::new(u64::from(number)),
            id: Str::default(),
            generation: -1,
            standing: Standing::Outside,
            last_beat: Instant::now(),
        }
    }

    /// Lives until it is killed or told to leave.
    pub(crate) fn run(mut self) -> anyhow::Result<()> {
        let lived = self.live();
        if lived.is_err() {
            self.journal.fail();
        }
        lived.with_context(|| format!("member {} ({:?})", self.number, self.id))
    }

    fn live(&mut self) -> anyhow::Result<()> {
        let mut last_reached = Instant::now();
        loop {
            let connected = self.connect();
            if connected.is_ok() {
                last_reached = Instant::now();
            }
            match connected.and_then(|mut connection| self.live_on(&mut connection)) {
                Ok(()) => return Ok(()),
                Err(_) if self.seat.told() == Told::Die => return Ok(()),
                Err(error) if is_lost_connection(&error) && last_reached.elapsed() < STUCK => {}
                Err(error) => return Err(error.into()),
            }
            self.seat.pause(BACKOFF);
        }
    }

    fn connect(&self) -> io::Result<Connection> {
        let connection = Connection::watched(self.place.address, &self.place.gate)?;
        self.seat.take_socket(connection.socket()?)?;
        Ok(connection)
    }

    fn live_on(&mut self, connection: &mut Connection) -> io::Result<()> {
        loop {
            self.seat.wait_while_held();
            match self.seat.told() {
                Told::Work => {}
                Told::Leave => return self.leave(connection),
                Told::Die => return Err(io::ErrorKind::ConnectionAborted.into()),
            }
            match &self.standing {
                Standing::Outside => self.join(connection)?,
                Standing::Assigned(partitions) => {
                    let partitions = partitions.clone();
                    self.resume(connection, &partitions)?;
                }
                Standing::Working(_) => self.work(connection)?,
            }
        }
    }

    fn join(&mut self, connection: &mut Connection) -> io::Result<()> {
        self.journal.joining(self.number);
        let joined = self.place.group.join(connection, &self.id)?;
        if joined.error_code == ErrorCode::MemberIdRequired.code() {
            self.id = joined.member_id;
            return Ok(());
        }
        if joined.error_code != 0 {
            return self.obey("a join", joined.error_code);
        }
        self.id = joined.member_id.clone();
        let synced = self.place.group.sync(connection, &joined)?;
        if synced.error_code != 0 {
            return self.obey("a sync", synced.error_code);
        }
        let partitions = Group::assigned(&synced.assignment)?;
        self.generation = joined.generation_id;
        self.journal.assigned(self.number, self.generation, &partitions);
        self.standing = Standing::Assigned(partitions);
        Ok(())
    }

    /// Begins where the group has committed.
    fn resume(&mut self, connection: &mut Connection, partitions: &[i32]) -> io::Result<()> {
        let asked_at = self.journal.mark();
        match self.place.group.committed(connection, partitions)? {
            Ok(offsets) => {
                self.journal.answered(&offsets, asked_at);
                let position = |offset: Option<i64>| {
                    let next = offset.unwrap_or(0);
                    Position { next, committed: next }
                };
                let positions = offsets.into_iter().map(|(partition, offset)| (partition, position(offset)));
                self.standing = Standing::Working(positions.collect());
                Ok(())
            }
            Err(code) => self.obey("an offset fetch", code),
        }
    }

    fn work(&mut self, connection: &mut Connection) -> io::Result<()> {
        self.fetch(connection)?;
        // Now and then more is left to commit than one fetch brought, so that a kill finds some.
        if self.random.below(4) != 0 {
            self.commit(connection)?;
        }
        if self.last_beat.elapsed() >= HEARTBEAT_INTERVAL {
            self.last_beat = Instant::now();
            let code = self.place.group.beat(connection, &self.id, self.generation)?;
            if code == ErrorCode::RebalanceInProgress.code() {
                // The last chance of this generation.
                self.commit(connection)?;
            }
            if code != 0 {
                self.obey("a heartbeat", code)?;
            }
        }
        Ok(())
    }

    /// Fetches what there is and processes it.
    fn fetch(&mut self, connection: &mut Connection) -> io::Result<()> {
        let Standing::Working(positions) = &mut self.standing else { return Ok(()) };
        if positions.is_empty() {
            self.seat.pause(HEARTBEAT_INTERVAL);
            return Ok(());
        }
        let wanted: Vec<(i32, i64)> = positions.iter().map(|(index, at)| (*index, at.next)).collect();
        for data in connection.poll(self.place.group.topic.as_str(), &wanted)? {
            match ErrorCode::from_code(data.error_code) {
                Some(ErrorCode::None) => {}
                // The partition recovers.
                Some(ErrorCode::NotLeaderOrFollower | ErrorCode::KafkaStorageError) => {
                    self.seat.pause(BACKOFF);
                    continue;
                }
                _ => return Err(wrong(format!("a fetch of {wanted:?} is answered {data:?}"))),
            }
            let Some(position) = positions.get_mut(&data.partition_index) else {
                return Err(wrong(format!("a fetch of {wanted:?} brings {}", data.partition_index)));
            };
            let bytes = data.records.bytes().cloned().unwrap_or_default();
            for batch in split(bytes).map_err(wrong)? {
                let mut records = placed(&batch, data.partition_index).map_err(wrong)?;
                records.retain(|record| record.offset >= position.next);
                if self.habit == Habit::Honest {
                    self.journal.processed(&records);
                }
                position.next = batch.header().next_offset().get();
            }
        }
        Ok(())
    }

    /// Commits what is not committed yet.
    fn commit(&mut self, connection: &mut Connection) -> io::Result<()> {
        let Standing::Working(positions) = &mut self.standing else { return Ok(()) };
        let open = positions.iter().filter(|(_, at)| at.next > at.committed);
        let offsets: Vec<(i32, i64)> = open.map(|(partition, at)| (*partition, at.next)).collect();
        if offsets.is_empty() {
            return Ok(());
        }
        let sent_at = self.journal.commit_sent(&offsets);
        let codes = self.place.group.commit(connection, (self.id.as_str(), self.generation), &offsets)?;
        let mut refused = None;
        for (partition, offset) in offsets {
            let code =
                *codes.get(&partition).ok_or_else(|| wrong("a commit's answer leaves out a partition"))?;
            if code != 0 {
                refused = Some(code);
                continue;
            }
            self.journal.commit_acked(partition, offset, sent_at);
            if let Some(position) = positions.get_mut(&partition) {
                position.committed = offset;
            }
        }
        refused.map_or(Ok(()), |code| self.obey("a commit", code))
    }

    fn leave(&mut self, connection: &mut Connection) -> io::Result<()> {
        self.commit(connection)?;
        let code = self.place.group.leave(connection, &self.id)?;
        match ErrorCode::from_code(code) {
            // It fell silent for too long, and was dropped.
            Some(ErrorCode::None | ErrorCode::UnknownMemberId) => Ok(()),
            Some(ErrorCode::CoordinatorLoadInProgress | ErrorCode::CoordinatorNotAvailable) => {
                Err(io::ErrorKind::ConnectionAborted.into())
            }
            _ => Err(wrong(format!("a leave is answered {}", name_of(code)))),
        }
    }

    /// Does what an error of the coordinator asks for; fails if it asks for nothing.
    fn obey(&mut self, what: &str, code: i16) -> io::Result<()> {
        match ErrorCode::from_code(code) {
            Some(ErrorCode::UnknownMemberId) => {
                self.id = Str::default();
                self.standing = Standing::Outside;
            }
            Some(ErrorCode::RebalanceInProgress | ErrorCode::IllegalGeneration) => {
                self.standing = Standing::Outside;
            }
            Some(
                ErrorCode::CoordinatorLoadInProgress
                | ErrorCode::CoordinatorNotAvailable
                | ErrorCode::NotCoordinator,
            ) => {
                self.journal.put_off();
                self.seat.pause(BACKOFF);
            }
            _ => return Err(wrong(format!("{what} is answered {}", name_of(code)))),
        }
        Ok(())
    }
}

fn wrong(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}
