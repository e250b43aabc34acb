//! What the tests share.

pub(crate) mod broker;
pub(crate) mod cgroup;
pub(crate) mod client;
pub(crate) mod clients;
pub(crate) mod drivers;
pub(crate) mod dump_log;
pub(crate) mod kafka_tools;
pub(crate) mod machine;
pub(crate) mod machine_kit;
pub(crate) mod meddler;
pub(crate) mod metrics;
pub(crate) mod process;
pub(crate) mod quotas;
pub(crate) mod recorder;
pub(crate) mod served;
pub(crate) mod skip;
pub(crate) mod strace;
pub(crate) mod talk;
pub(crate) mod toolbox;
pub(crate) mod wait;
pub(crate) mod wire;
