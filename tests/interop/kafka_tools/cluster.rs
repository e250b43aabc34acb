//! The tools that look at the cluster find one broker that leads everything, and are told so where they would move
//! something.

use anyhow::{Context, ensure};

use super::{Session, has, has_line};
use crate::harness::kafka_tools::Tool::{
    BrokerApiVersions, Cluster, Features, LeaderElection, MetadataQuorum, ReassignPartitions,
};

#[test]
fn the_cluster_tools_find_one_broker() -> anyhow::Result<()> {
    let Some(mut session) = Session::start()? else { return Ok(()) };
    let node = session.node()?;
    let bootstrap = session.target.bootstrap();

    let cluster = session.tools.run(Cluster, &["cluster-id", "--bootstrap-server", &bootstrap])?;
    let id = cluster.trim().strip_prefix("Cluster ID: ").context("the cluster has an id")?.to_owned();
    ensure!(id.len() == 22, "the cluster id is {id:?}");
    let status = session.run(MetadataQuorum, "describe --status")?;
    for (name, value) in [("ClusterId", id.as_str()), ("LeaderId", &node), ("MaxFollowerLag", "0")] {
        let line = |line: &str| line.split_whitespace().eq([&format!("{name}:"), value]);
        ensure!(status.lines().any(line), "{name} is not {value} in:\n{status}");
    }
    let replication = session.run(MetadataQuorum, "describe --replication")?;
    let row = replication.lines().nth(1).context("there is one replica")?;
    ensure!(row.starts_with(&node) && row.trim_end().ends_with("Leader"), "{replication}");
    Ok(())
}

#[test]
fn kafka_broker_api_versions_can_use_every_api_that_a_consumer_needs() -> anyhow::Result<()> {
    let Some(mut session) = Session::start()? else { return Ok(()) };

    let printed = session.run(BrokerApiVersions, "")?;

    let usable = [
        "Produce(0): 0 to 13 [usable: 13]",
        "Fetch(1): 4 to 18 [usable: 18]",
        "OffsetCommit(8): 2 to 9 [usable: 9]",
        "OffsetFetch(9): 1 to 9 [usable: 9]",
        "JoinGroup(11): 0 to 9 [usable: 9]",
        "SyncGroup(14): 0 to 5 [usable: 5]",
        "DescribeGroups(15): 0 to 6 [usable: 6]",
        "DescribeConfigs(32): 1 to 4 [usable: 4]",
        "IncrementalAlterConfigs(44): 0 to 1 [usable: 1]",
        "DescribeCluster(60): 0 to 2 [usable: 2]",
    ];
    usable.iter().try_for_each(|api| has(&printed, api))
}

#[test]
fn an_election_and_a_reassignment_find_everything_where_it_belongs() -> anyhow::Result<()> {
    let Some(mut session) = Session::start()? else { return Ok(()) };
    let (topic, node) = (session.create("settled", 2)?, session.node()?);
    for kind in ["preferred", "unclean"] {
        let elect = format!("--election-type {kind} --topic {topic} --partition 0");
        let elected = session.run(LeaderElection, &elect)?;
        has_line(&elected, &format!("Valid replica already elected for partitions {topic}-0"))?;
    }
    session.run(LeaderElection, "--election-type preferred --all-topic-partitions")?;

    let plan = |node: &str| {
        format!(r#"{{"version":1,"partitions":[{{"topic":"{topic}","partition":0,"replicas":[{node}]}}]}}"#)
    };
    let here = session.file("here.json", &plan(&node))?;
    let elsewhere = session.file("elsewhere.json", &plan("77"))?;
    let reassign = |path: &std::path::Path| format!("--reassignment-json-file {}", path.display());
    has_line(&session.run(ReassignPartitions, "--list")?, "No partition reassignments found.")?;
    let started = session.run(ReassignPartitions, &format!("{} --execute", reassign(&here)))?;
    has_line(&started, &format!("Successfully started partition reassignment for {topic}-0"))?;
    let verified = session.run(ReassignPartitions, &format!("{} --verify", reassign(&here)))?;
    has_line(&verified, &format!("Reassignment of partition {topic}-0 is completed."))?;
    let refused = session.refused(ReassignPartitions, &format!("{} --execute", reassign(&elsewhere)))?;
    has(&refused, "Unknown broker id 77")
}

#[test]
fn kafka_features_describes_and_refuses_what_it_does_not_know() -> anyhow::Result<()> {
    let Some(mut session) = Session::start()? else { return Ok(()) };

    session.run(Features, "describe")?;
    let refused = session.refused(Features, "upgrade --feature no.such.feature=1")?;

    has(&refused, "no.such.feature")
}
