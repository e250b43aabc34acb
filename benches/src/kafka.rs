//! Apache Kafka as a server under test: one node that is broker and controller, as its own start script would run it.
//!
//! It needs Java and a folder of Kafka's jars (`kafka-server`, with what it depends on). Its heap and its collector are
//! those of `kafka-server-start.sh`; it logs warnings only, so that it does not pay for talking.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

/// Any will do: the cluster has one node and is thrown away.
const CLUSTER_ID: &str = "AAAAAAAAAAAAAAAAAAAAAQ";
const HEAP: [&str; 2] = ["-Xms1G", "-Xmx1G"];
const COLLECTOR: [&str; 5] = [
    "-server",
    "-XX:+UseG1GC",
    "-XX:MaxGCPauseMillis=20",
    "-XX:InitiatingHeapOccupancyPercent=35",
    "-XX:+ExplicitGCInvokesConcurrent",
];
const QUIET: &str = "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn";

/// The command that starts Kafka on what is in `home`, formatted first if it is new, and the address it will have.
pub(crate) fn command(jars: &Path, durability: &str, home: &Path) -> Result<(Command, SocketAddr)> {
    let address = free_address()?;
    let properties = home.join("kafka.properties");
    fs::write(&properties, settings(address, free_address()?, durability, home))
        .with_context(|| format!("write {}", properties.display()))?;
    if !home.join("data").exists() {
        format_storage(jars, &properties)?;
    }
    let mut command = java(jars);
    command.args(HEAP).args(COLLECTOR).arg("kafka.Kafka").arg(&properties);
    Ok((command, address))
}

fn java(jars: &Path) -> Command {
    let mut command = Command::new("java");
    command.arg("-cp").arg(jars.join("*")).arg(QUIET);
    command
}

fn format_storage(jars: &Path, properties: &Path) -> Result<()> {
    let mut command = java(jars);
    command.args(["kafka.tools.StorageTool", "format", "-t", CLUSTER_ID, "-c"]).arg(properties);
    let output = command.stdin(Stdio::null()).output().context("start java, which Kafka needs")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "Kafka's storage could not be formatted: {said}");
    Ok(())
}

fn settings(broker: SocketAddr, controller: SocketAddr, durability: &str, home: &Path) -> String {
    let data = home.join("data");
    let mut lines = vec![
        "process.roles=broker,controller".to_owned(),
        "node.id=1".to_owned(),
        format!("controller.quorum.voters=1@{controller}"),
        format!("listeners=PLAINTEXT://{broker},CONTROLLER://{controller}"),
        format!("advertised.listeners=PLAINTEXT://{broker}"),
        "controller.listener.names=CONTROLLER".to_owned(),
        format!("log.dirs={}", data.display()),
        // The records of the benches are from a fixed day, and Kafka would take them for too old.
        "log.retention.ms=-1".to_owned(),
        "offsets.topic.replication.factor=1".to_owned(),
        "transaction.state.log.replication.factor=1".to_owned(),
        "transaction.state.log.min.isr=1".to_owned(),
    ];
    if durability == "fsync" {
        // Every batch is synced before it is acknowledged, as Highwater does by default.
        lines.push("log.flush.interval.messages=1".to_owned());
    }
    lines.join("\n") + "\n"
}

/// An address that nobody listened on a moment ago.
fn free_address() -> Result<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("find a free port")?;
    listener.local_addr().context("ask for the port")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_durable_kafka_syncs_every_batch() {
        let [broker, controller] = [free_address().unwrap(), free_address().unwrap()];
        let of = |durability| settings(broker, controller, durability, Path::new("/kafka"));

        assert!(of("fsync").contains("log.flush.interval.messages=1\n"));
        assert!(!of("os").contains("flush"));
        assert!(of("os").contains("log.dirs=/kafka/data\n"));
    }
}
