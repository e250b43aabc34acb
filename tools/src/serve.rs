//! `highwater serve`: flags to a checked configuration, a runtime, signals, and the ready line. The only file that
//! names the broker.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::ArgMatches;
use clap::parser::ValueSource;
use highwater_broker::{
    Config, ConnectionLimits, DiskReserve, Durability, Endpoint, Listen, MemoryOrigin, MemorySize, Ready,
};

/// Flags of `highwater serve`.
#[derive(clap::Args, Debug)]
#[command(before_help = "\
Examples:
  highwater serve                                        data in ./highwater-data, Kafka and HTTP on 127.0.0.1:9092
  highwater serve --data /var/lib/highwater --listen 127.0.0.1:0
  highwater serve --listen 0.0.0.0:9092 --advertise logs.example.org:9092 --insecure-allow-remote

Signals: SIGTERM and SIGINT stop the broker gracefully; it exits with 0, or after 25 s with 1 if the disk hangs.")]
pub(crate) struct ServeArgs {
    /// Directory of all data; created if absent.
    #[arg(long, value_name = "DIR", default_value = "./highwater-data", env = "HIGHWATER_DATA")]
    data: PathBuf,
    /// Address to listen on, several times for several. Default: 127.0.0.1:9092 and [::1]:9092. Port 0 picks a free one.
    #[arg(long, value_name = "HOST:PORT", env = "HIGHWATER_LISTEN", value_delimiter = ',')]
    listen: Vec<SocketAddr>,
    /// Address that clients are told. Default: the one that they reached.
    #[arg(long, value_name = "HOST:PORT", env = "HIGHWATER_ADVERTISE")]
    advertise: Option<Endpoint>,
    /// What an acknowledgement waits for: fsync, interval=<ms> or os. `os` loses acknowledged records in a power cut.
    #[arg(long, value_name = "MODE", default_value = "fsync", env = "HIGHWATER_DURABILITY")]
    durability: Durability,
    /// Memory for requests, answers and the broker itself: bytes, or a number with K, M, G or T (of 1024); at least 32M. When it
    /// is used up, connections wait for their turn. Default: a quarter of the machine's memory, or of its control group's
    /// limit if that is less; at least 64MiB.
    #[arg(long, value_name = "SIZE", env = "HIGHWATER_MEMORY")]
    memory: Option<MemorySize>,
    /// Space on the data directory's disk that clients' records leave free: bytes, or a number with K, M, G or T (of 1024); 0 for
    /// none. Below it produce requests are refused until there is space again, while reads, deletions and commits go on.
    /// Default: 1GiB, or 5 % of the file system if that is less.
    #[arg(long, value_name = "SIZE", env = "HIGHWATER_DISK_RESERVE")]
    disk_reserve: Option<DiskReserve>,
    /// Listen beyond loopback without encryption or authentication: everyone who can connect may read and write.
    #[arg(long)]
    insecure_allow_remote: bool,
    /// Do not create topics that clients ask for.
    #[arg(long)]
    no_auto_create: bool,
    /// Partitions of topics created without a count.
    #[arg(long, value_name = "N", default_value_t = 1, allow_negative_numbers = true)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=20_000))]
    partitions: u32,
    /// Refuse a replication factor or min.insync.replicas above 1 instead of serving it with one replica.
    #[arg(long)]
    strict_replication: bool,
    /// How long a consumer group without members waits for more of them before it begins.
    #[arg(long, value_name = "MS", default_value_t = 3_000, value_parser = clap::value_parser!(u32).range(..=600_000))]
    group_initial_rebalance_delay_ms: u32,
    /// How often topics are looked through for segments that are too old or too many.
    #[arg(long, value_name = "MS", default_value_t = 300_000, allow_negative_numbers = true)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..))]
    log_retention_check_interval_ms: u32,
    /// Connections at once; more are refused. Default: no limit.
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..))]
    max_connections: Option<u32>,
    /// Connections at once from one address; more are refused. Default: no limit.
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..))]
    max_connections_per_ip: Option<u32>,
    /// New connections a second; more wait until they are accepted. Default: no limit.
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..))]
    max_connection_rate: Option<u32>,
}

impl ServeArgs {
    fn config(self, matches: Option<&ArgMatches>) -> Config {
        let mut config = Config::new(self.data);
        if !self.listen.is_empty() {
            config.listen = Listen::Exactly(self.listen);
        }
        config.advertise = self.advertise;
        config.durability = self.durability;
        if let Some(memory) = self.memory {
            config.memory = memory;
            let source = matches.and_then(|matches| matches.value_source("memory"));
            config.memory_origin = match source {
                Some(ValueSource::EnvVariable) => MemoryOrigin::Environment,
                _ => MemoryOrigin::Flag,
            };
        }
        config.disk_reserve = self.disk_reserve;
        config.insecure_allow_remote = self.insecure_allow_remote;
        config.auto_create_topics = !self.no_auto_create;
        config.partitions_default = self.partitions;
        config.accept_replication_as_one = !self.strict_replication;
        config.initial_rebalance_delay =
            Duration::from_millis(u64::from(self.group_initial_rebalance_delay_ms));
        config.retention_check_interval =
            Duration::from_millis(u64::from(self.log_retention_check_interval_ms));
        config.connections = ConnectionLimits {
            total: self.max_connections,
            per_ip: self.max_connections_per_ip,
            rate: self.max_connection_rate,
        };
        config
    }
}

/// Runs a broker until SIGTERM or SIGINT. `matches` says where each of `args` comes from.
pub(crate) fn run(args: ServeArgs, matches: Option<&ArgMatches>) -> anyhow::Result<ExitCode> {
    let filter =
        tracing_subscriber::EnvFilter::try_from_env("HIGHWATER_LOG").unwrap_or_else(|_| "info".into());
    let colour =
        std::io::IsTerminal::is_terminal(&std::io::stderr()) && std::env::var_os("NO_COLOR").is_none();
    let log =
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(colour);
    // A line that cannot be written, because the log is on the disk that is full, is lost. By default that would be said on
    // stderr, which panics when that fails too.
    log.log_internal_errors(false).init();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(highwater_broker::worker_threads())
        .enable_all()
        .build()
        .context("start the runtime")?;
    let outcome = runtime.block_on(async {
        let stop = stop_signal().context("listen for signals")?;
        // Its errors say their cause themselves.
        let ran = highwater_broker::run(args.config(matches), stop, announce).await;
        ran.map_err(|error| anyhow::anyhow!("{error}"))?;
        Ok(ExitCode::SUCCESS)
    });
    // After a stop that the disk did not let come to its end there are threads to wait for for ever.
    runtime.shutdown_background();
    outcome
}

/// The ready line: data for scripts, so it goes to stdout.
fn announce(ready: &Ready) {
    use std::io::Write;
    let addresses: Vec<_> = ready.addresses.iter().map(ToString::to_string).collect();
    let line = format!(
        "highwater {} ready on {} data={} in {} ms",
        env!("CARGO_PKG_VERSION"),
        addresses.join(","),
        ready.data.display(),
        ready.took.as_millis()
    );
    // A closed stdout is no reason to stop serving.
    let mut stdout = std::io::stdout();
    let _ = writeln!(stdout, "{line}").and_then(|()| stdout.flush());
}

fn stop_signal() -> std::io::Result<impl Future<Output = ()>> {
    use tokio::signal::unix::{SignalKind, signal};
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}
