//! Roofline and broker in turns, on the same load, in one run: the ratio is what counts, since the machine's mood moves
//! both. Each turn has a fresh process on fresh data; who goes first changes every round.
//!
//! On a virtual machine a turn that gets cold memory from the host may cost several times the CPU of the next. The
//! ratio of the best turns of both sides is therefore given besides the ratios round by round: noise only adds.

use anyhow::{Context, Result};

use crate::ServerArgs;
use crate::batch::Batch;
use crate::connection::Connection;
use crate::load::{self, Place, Until};
use crate::process::{Program, Server, cpu_seconds};
use crate::report::{self, progress};
use crate::roofline::SEGMENT_BYTES;
use crate::size::ByteSize;
use crate::stats::Spread;

/// Moved before the clock starts: connections open, first files made, code paged in.
const WARM_UP: ByteSize = ByteSize::mib(64);
/// What there is to consume. It stays in the page cache, and consumers go round.
const CONSUMED: ByteSize = ByteSize::mib(512);
/// A consume turn moves this many times what a produce turn does: it costs so little CPU that ticks would show.
const CONSUME_TIMES: u64 = 4;
/// Batches that consumers find.
const CONSUMED_BATCH: ByteSize = ByteSize::kib(64);
const TOPIC: &str = "bench";

#[derive(clap::Args)]
pub(crate) struct CompareArgs {
    #[command(flatten)]
    server: ServerArgs,
    /// Times that each side runs each load.
    #[arg(long, default_value_t = 5)]
    rounds: u32,
    /// How much a produce turn moves; a consume turn moves four times as much.
    #[arg(long, default_value = "1GiB")]
    bytes: ByteSize,
    /// Size of a record's value.
    #[arg(long, default_value = "1KiB")]
    value: ByteSize,
    /// Connections, each with a partition of its own.
    #[arg(long, default_value_t = 1)]
    connections: u32,
    /// Unanswered produce requests on each connection.
    #[arg(long, default_value_t = 5)]
    in_flight: usize,
    /// Measure the ceiling alone, without a broker.
    #[arg(long)]
    roofline_only: bool,
}

#[derive(Clone, Copy)]
enum Load {
    Produce { batch: ByteSize },
    Consume { fetch: ByteSize },
}

const LOADS: [Load; 4] = [
    Load::Produce { batch: ByteSize::kib(64) },
    Load::Produce { batch: ByteSize::mib(1) },
    Load::Consume { fetch: ByteSize::kib(64) },
    Load::Consume { fetch: ByteSize::mib(1) },
];

/// One turn of one side.
#[derive(Clone, Copy)]
struct Turn {
    mib_per_second: f64,
    cpu_per_gib: f64,
}

/// The turns of one load, round by round.
#[derive(Default)]
struct Turns {
    roofline: Vec<Turn>,
    broker: Vec<Turn>,
}

/// Runs all loads and returns the table.
pub(crate) fn run(args: &CompareArgs) -> Result<String> {
    let binary = if args.roofline_only { None } else { Some(args.server.binary()?) };
    let broker = binary.as_deref().map(|binary| Program::Broker { binary, durability: "os" });
    let machine = report::machine();
    let mut rows = Vec::new();
    for load in LOADS {
        let mut turns = Turns::default();
        for round in 0..args.rounds {
            let mut sides = [Some(Program::Roofline), broker];
            if round % 2 == 1 {
                sides.reverse();
            }
            for program in sides.into_iter().flatten() {
                let turn = take_turn(args, load, program)?;
                let (mib, cpu) = (turn.mib_per_second, turn.cpu_per_gib);
                progress(format_args!(
                    "{} round {}: {}: {mib:.0} MiB/s, {cpu:.3} s/GiB",
                    load.name(),
                    round + 1,
                    program.name()
                ));
                match program {
                    Program::Roofline => turns.roofline.push(turn),
                    _ => turns.broker.push(turn),
                }
            }
        }
        rows.extend(turns.rows(load));
    }
    let header = [
        "load",
        "server",
        "MiB/s",
        "server CPU s/GiB",
        "CPU to roofline",
        "best CPU to best",
        "MiB/s to roofline",
    ];
    Ok(format!(
        "{}\n\n{machine}; {} rounds of {}, {} connections, {} in flight, values of {}; median [min..max]",
        report::table(header, rows),
        args.rounds,
        args.bytes,
        args.connections,
        args.in_flight,
        args.value,
    ))
}

fn take_turn(args: &CompareArgs, load: Load, program: Program<'_>) -> Result<Turn> {
    let server = Server::start(program, &args.server.data_root())?;
    let address = server.address;
    let partitions = i32::try_from(args.connections).context("--connections must fit in 31 bits")?;
    Connection::open(address)?.create_topic(TOPIC, partitions, SEGMENT_BYTES)?;
    let place = Place { address, topic: TOPIC, partitions: args.connections, connections: args.connections };
    let batch = Batch::build(load.batch_bytes() as usize, args.value.0 as usize)?;
    let produce = |bytes| load::produce(place, args.in_flight, &batch, Until::Bytes(bytes));
    let measured = match load {
        Load::Produce { .. } => {
            produce(WARM_UP.0)?;
            let before = cpu_seconds(server.pid())?;
            (before, produce(args.bytes.0)?)
        }
        Load::Consume { fetch } => {
            let max_bytes = i32::try_from(fetch.0).context("the fetch size must fit in 31 bits")?;
            let consume = |bytes| load::consume(place, max_bytes, Until::Bytes(bytes));
            produce(CONSUMED.0)?;
            consume(WARM_UP.0)?;
            let before = cpu_seconds(server.pid())?;
            (before, consume(args.bytes.0 * CONSUME_TIMES)?)
        }
    };
    let (before, outcome) = measured;
    let cpu = cpu_seconds(server.pid())? - before;
    let cpu_per_gib = cpu / (outcome.bytes as f64 / f64::from(1 << 30));
    Ok(Turn { mib_per_second: outcome.mib_per_second(), cpu_per_gib })
}

impl Load {
    fn name(self) -> String {
        match self {
            Self::Produce { batch } => format!("produce {batch}"),
            Self::Consume { fetch } => format!("consume {fetch}"),
        }
    }

    fn batch_bytes(self) -> u64 {
        match self {
            Self::Produce { batch } => batch.0,
            Self::Consume { .. } => CONSUMED_BATCH.0,
        }
    }
}

impl Turns {
    fn rows(&self, load: Load) -> Vec<[String; 7]> {
        let row = |server: &str, turns: &[Turn], ratios: [Option<String>; 3]| {
            let rate = Spread::of(turns.iter().map(|turn| turn.mib_per_second))?;
            let cpu = Spread::of(turns.iter().map(|turn| turn.cpu_per_gib))?;
            let [cpu_ratio, best_ratio, rate_ratio] = ratios.map(|ratio| ratio.unwrap_or("1".to_owned()));
            let (rate, cpu) = (format!("{rate:.0}"), format!("{cpu:.3}"));
            Some([load.name(), server.to_owned(), rate, cpu, cpu_ratio, best_ratio, rate_ratio])
        };
        let ratios = [
            self.ratio(|turn| turn.cpu_per_gib).map(|ratio| format!("{ratio:.2}")),
            self.best_ratio().map(|ratio| format!("{ratio:.2}")),
            self.ratio(|turn| turn.mib_per_second).map(|ratio| format!("{ratio:.2}")),
        ];
        let rows =
            [row("roofline", &self.roofline, [None, None, None]), row("highwater", &self.broker, ratios)];
        rows.into_iter().flatten().collect()
    }

    /// Broker to roofline, round by round.
    fn ratio(&self, of: fn(&Turn) -> f64) -> Option<Spread> {
        let pairs = self.broker.iter().zip(&self.roofline);
        Spread::of(pairs.map(|(broker, roofline)| of(broker) / of(roofline)))
    }

    /// The broker's cheapest turn to the roofline's.
    fn best_ratio(&self) -> Option<f64> {
        let cheapest = |turns: &[Turn]| Spread::of(turns.iter().map(|turn| turn.cpu_per_gib));
        Some(cheapest(&self.broker)?.min / cheapest(&self.roofline)?.min)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn turn(mib_per_second: f64, cpu_per_gib: f64) -> Turn {
        Turn { mib_per_second, cpu_per_gib }
    }

    #[test]
    fn ratios_are_taken_round_by_round() {
        let turns = Turns {
            roofline: vec![turn(1000.0, 0.2), turn(100.0, 2.0), turn(1000.0, 0.4)],
            broker: vec![turn(500.0, 0.4), turn(50.0, 4.0), turn(1000.0, 0.4)],
        };

        let rows = turns.rows(LOADS[0]);

        assert_eq!(rows[0][1..4], ["roofline", "1000 [100..1000]", "0.400 [0.200..2.000]"]);
        assert_eq!(rows[1][4..], ["2.00 [1.00..2.00]", "2.00", "0.50 [0.50..1.00]"]);
    }

    #[test]
    fn without_a_broker_there_is_one_row() {
        let turns = Turns { roofline: vec![turn(1000.0, 0.2)], broker: Vec::new() };

        assert_eq!(turns.rows(LOADS[3]).len(), 1);
    }
}
