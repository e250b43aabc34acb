//! What can be set about groups, with Kafka's defaults.

/// The limits and delays of a coordinator. [`Settings::default`] has Kafka's defaults where Kafka has the setting.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Settings {
    /// Shortest session timeout that a member may ask for, in milliseconds (`group.min.session.timeout.ms`).
    /// Default: 6 seconds.
    pub session_timeout_ms_min: u32,
    /// Longest session timeout that a member may ask for, in milliseconds (`group.max.session.timeout.ms`).
    /// Default: 30 minutes.
    pub session_timeout_ms_max: u32,
    /// How long an empty group waits for more members before its first rebalance completes, in milliseconds
    /// (`group.initial.rebalance.delay.ms`). Default: 3 seconds.
    pub initial_rebalance_delay_ms: u32,
    /// How long a member without an answered join is kept, in milliseconds (Kafka's constant). Default: 5 minutes.
    pub new_member_timeout_ms: u32,
    /// Most members of a group (`group.max.size`); as many more may be on their way in with an id and no join
    /// yet. Default: 1,000.
    pub group_size_max: usize,
    /// Most bytes of protocol names and metadata that one member may bring; what is larger than a record could not be
    /// stored. What all members bring together is the host's to bound. Default: 1,048,000.
    pub member_metadata_bytes_max: usize,
    /// Most bytes of a record to append, key and value; a group whose state needs more refuses its assignment.
    /// At least what the topic accepts (`max.message.bytes`) less a batch header. Default: 1,048,000.
    pub record_bytes_max: usize,
    /// Most bytes of the metadata of a committed offset (`offset.metadata.max.bytes`). Default: 4,096.
    pub offset_metadata_bytes_max: usize,
    /// How long offsets are kept once their group is empty (or, without a group, since their commit), in
    /// milliseconds (`offsets.retention.minutes`). Default: 7 days.
    pub offsets_retention_ms: u64,
    /// How often expired offsets are looked for, in milliseconds (`offsets.retention.check.interval.ms`).
    /// Default: 10 minutes.
    pub retention_check_interval_ms: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            session_timeout_ms_min: 6_000,
            session_timeout_ms_max: 1_800_000,
            initial_rebalance_delay_ms: 3_000,
            new_member_timeout_ms: 300_000,
            group_size_max: 1_000,
            member_metadata_bytes_max: 1_048_000,
            record_bytes_max: 1_048_000,
            offset_metadata_bytes_max: 4_096,
            offsets_retention_ms: 7 * 24 * 3_600_000,
            retention_check_interval_ms: 600_000,
        }
    }
}
