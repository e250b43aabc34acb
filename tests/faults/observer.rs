//! Somebody who asks for the committed offsets of a group all the time, from the moment on at which the port of a
//! started broker opens, and lets producers be no more than so many records ahead of them.

use std::io;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use highwater_protocol::ErrorCode;

use super::client::{Connection, is_lost_connection, name_of};
use super::gate::{Order, STUCK};
use super::group_journal::Journal;
use super::member::Place;

/// How many records producers may be ahead of what is committed.
const AHEAD: u64 = 20_000;
/// How often the observer asks.
const INTERVAL: Duration = Duration::from_millis(20);

/// Asks, through restarts, until the campaign is over.
pub(crate) fn observe(place: &Place, journal: &Journal) -> anyhow::Result<()> {
    let observed = observe_through_restarts(place, journal);
    if observed.is_err() {
        journal.fail();
        place.gate.fail();
    }
    observed.context("observer")
}

fn observe_through_restarts(place: &Place, journal: &Journal) -> anyhow::Result<()> {
    let Place { address, gate, .. } = place;
    let mut last_reached = Instant::now();
    while gate.order() != Order::Abandon {
        let connected = Connection::watched(*address, gate);
        if connected.is_ok() {
            last_reached = Instant::now();
        }
        match connected.and_then(|connection| observe_on(connection, place, journal)) {
            Err(error) if !is_lost_connection(&error) => return Err(error.into()),
            Err(_) if last_reached.elapsed() > STUCK => bail!("no broker for {STUCK:?}"),
            _ => {}
        }
        gate.wait_past(gate.incarnation(), INTERVAL);
    }
    Ok(())
}

fn observe_on(mut connection: Connection, place: &Place, journal: &Journal) -> io::Result<()> {
    let Place { group, gate, .. } = place;
    let all: Vec<i32> = (0..group.partitions).collect();
    while gate.order() != Order::Abandon {
        let asked_at = journal.mark();
        match group.committed(&mut connection, &all)? {
            Ok(offsets) => {
                journal.answered(&offsets, asked_at);
                gate.allow(journal.polled() + AHEAD);
            }
            Err(code) if is_put_off(code) => journal.put_off(),
            Err(code) => {
                let sentence = format!("the observer is answered {}", name_of(code));
                return Err(io::Error::new(io::ErrorKind::InvalidData, sentence));
            }
        }
        gate.wait_past(gate.incarnation(), INTERVAL);
    }
    Ok(())
}

/// Whether a coordinator asks to come back later.
fn is_put_off(code: i16) -> bool {
    matches!(
        ErrorCode::from_code(code),
        Some(
            ErrorCode::CoordinatorLoadInProgress
                | ErrorCode::CoordinatorNotAvailable
                | ErrorCode::NotCoordinator
        )
    )
}
