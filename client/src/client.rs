//! A client of one cluster: where its brokers are, one connection per broker and lane, and who leads what.
//!
//! Connections are made when they are needed and forgotten when they fail. The picture of the cluster is as old as the
//! last question; whoever gets an answer that contradicts it asks again. Handles are cheap to clone and share
//! everything.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use highwater_protocol::api::MetadataRequest;
use highwater_protocol::api::metadata::MetadataRequestTopic;
use highwater_record::{TopicName, TopicPartition};
use thiserror::Error;

use crate::{Address, BrokerError, CallError, Cluster, ConnectError, Connection, ConnectionConfig};

/// The newest Metadata version in use: 13 only adds an error that 12 expresses per topic.
const METADATA_VERSION_MAX: i16 = 12;

/// How a client finds its cluster, and how long it tries.
#[derive(Clone, Debug)]
pub struct ClientConfig {
    /// Brokers to ask first, in this order.
    pub bootstrap: Vec<Address>,
    /// How each connection behaves.
    pub connection: ConnectionConfig,
    /// How long an operation is tried again after errors that may pass.
    pub retry_for: Duration,
}

impl ClientConfig {
    /// The usual settings: 5 s to connect, 30 s for an answer, answers of up to 128 MiB, 30 s of trying again.
    pub fn new(bootstrap: Vec<Address>, client_id: &str) -> Self {
        let connection = ConnectionConfig {
            client_id: client_id.to_owned(),
            connect_timeout: Duration::from_secs(5),
            request_timeout: Duration::from_secs(30),
            frame_bytes_max: 128 << 20,
        };
        Self { bootstrap, connection, retry_for: Duration::from_secs(30) }
    }
}

/// What a connection is for. A fetch that waits holds up whatever follows it on its connection.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Lane {
    /// Questions that are answered at once.
    Control,
    /// Produce requests.
    Produce,
    /// Fetch requests.
    Fetch,
}

/// Why the cluster cannot be asked.
#[derive(Clone, Debug, Error)]
pub enum ClientError {
    /// No broker of the bootstrap list answers. The first one's reason.
    #[error(transparent)]
    Bootstrap(ConnectError),
    /// A broker is not where the cluster says that it is.
    #[error(
        "broker {node} advertises {address}, which this machine cannot use: {source}; the cluster itself was reached \
         at {reached}"
    )]
    Advertised {
        /// The broker.
        node: i32,
        /// Where it says it is.
        address: Address,
        /// Where the cluster was reached.
        reached: Address,
        /// Why not.
        source: Box<ConnectError>,
    },
    /// No answer.
    #[error(transparent)]
    Call(#[from] CallError),
    /// An answer that says no.
    #[error(transparent)]
    Broker(#[from] BrokerError),
    /// A partition without a leader, or that does not exist.
    #[error("{partition} has no leader")]
    NoLeader {
        /// The partition.
        partition: TopicPartition,
    },
}

impl ClientError {
    /// Whether trying again may help.
    pub fn is_retriable(&self) -> bool {
        match self {
            Self::Bootstrap(_) | Self::Advertised { .. } | Self::NoLeader { .. } => true,
            Self::Call(error) => error.is_retriable(),
            Self::Broker(error) => error.is_retriable(),
        }
    }
}

/// A handle on a cluster.
#[derive(Clone, Debug)]
pub struct Client {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    config: ClientConfig,
    connections: Mutex<HashMap<(Address, Lane), Arc<Connection>>>,
    cluster: Mutex<Arc<Cluster>>,
}

impl Client {
    /// A client that has not connected yet.
    pub fn new(config: ClientConfig) -> Self {
        let shared = Shared {
            config,
            connections: Mutex::new(HashMap::new()),
            cluster: Mutex::new(Arc::new(Cluster::default())),
        };
        Self { shared: Arc::new(shared) }
    }

    /// The settings.
    pub fn config(&self) -> &ClientConfig {
        &self.shared.config
    }

    /// The last picture of the cluster.
    pub fn cluster(&self) -> Arc<Cluster> {
        Arc::clone(&lock(&self.shared.cluster))
    }

    /// Describes the cluster and all its topics.
    ///
    /// # Errors
    ///
    /// If no broker answers.
    pub async fn describe_all(&self) -> Result<Arc<Cluster>, ClientError> {
        self.metadata(None, false).await
    }

    /// Describes `topics`; those that do not exist are errors in the answer and are not created.
    ///
    /// # Errors
    ///
    /// If no broker answers.
    pub async fn describe(&self, topics: &[TopicName]) -> Result<Arc<Cluster>, ClientError> {
        self.metadata(Some(topics), false).await
    }

    /// Describes `topics` and lets the broker create those that do not exist, if it does such things.
    ///
    /// # Errors
    ///
    /// If no broker answers.
    pub async fn describe_or_create(&self, topics: &[TopicName]) -> Result<Arc<Cluster>, ClientError> {
        self.metadata(Some(topics), true).await
    }

    async fn metadata(
        &self,
        topics: Option<&[TopicName]>,
        create: bool,
    ) -> Result<Arc<Cluster>, ClientError> {
        let connection = self.any_connection().await?;
        let version = connection.version::<MetadataRequest>(METADATA_VERSION_MAX)?;
        let name = |topic: &TopicName| MetadataRequestTopic {
            name: Some(topic.as_str().into()),
            ..MetadataRequestTopic::default()
        };
        let request = MetadataRequest {
            topics: topics.map(|topics| topics.iter().map(name).collect()),
            allow_auto_topic_creation: create,
            ..MetadataRequest::default()
        };
        let response = match connection.call(&request, version, Duration::ZERO).await {
            Ok(response) => response,
            Err(error) => {
                self.forget(&connection);
                return Err(error.into());
            }
        };
        BrokerError::check(response.error_code, None)?;
        let answer = Cluster::from_response(&response);
        let mut cluster = lock(&self.shared.cluster);
        let mut merged = if topics.is_none() { Cluster::default() } else { Cluster::clone(&cluster) };
        merged.update(&answer);
        *cluster = Arc::new(merged);
        drop(cluster);
        Ok(Arc::new(answer))
    }

    /// A connection to the broker that creates and deletes topics; to any broker if the cluster does not name one.
    pub(crate) async fn controller(&self) -> Result<Arc<Connection>, ClientError> {
        let cluster = self.describe(&[]).await?;
        match cluster.controller.and_then(|node| Some((node, cluster.brokers.get(&node)?))) {
            Some((node, address)) => self.advertised(node, address, Lane::Control).await,
            None => self.any_connection().await,
        }
    }

    /// A connection to the leader of `partition`, by the last picture of the cluster.
    pub(crate) async fn leader(
        &self,
        partition: &TopicPartition,
        lane: Lane,
    ) -> Result<Arc<Connection>, ClientError> {
        let mut cluster = self.cluster();
        if cluster.leader(partition).is_none() {
            self.describe(std::slice::from_ref(&partition.topic)).await?;
            cluster = self.cluster();
        }
        let (node, address) = cluster
            .leader(partition)
            .ok_or_else(|| ClientError::NoLeader { partition: partition.clone() })?;
        self.advertised(node, address, lane).await
    }

    /// Any broker: one that is connected, else the first of the bootstrap list that answers.
    pub(crate) async fn any_connection(&self) -> Result<Arc<Connection>, ClientError> {
        let connected = lock(&self.shared.connections)
            .iter()
            .find(|((_, lane), connection)| *lane == Lane::Control && !connection.is_closed())
            .map(|(_, connection)| Arc::clone(connection));
        if let Some(connection) = connected {
            return Ok(connection);
        }
        let mut first = None;
        for address in &self.shared.config.bootstrap {
            match self.connection(address, Lane::Control).await {
                Ok(connection) => return Ok(connection),
                Err(error) => {
                    first.get_or_insert(error);
                }
            }
        }
        let error = first.expect("the bootstrap list is not empty");
        Err(ClientError::Bootstrap(error))
    }

    pub(crate) async fn advertised(
        &self,
        node: i32,
        address: &Address,
        lane: Lane,
    ) -> Result<Arc<Connection>, ClientError> {
        self.connection(address, lane).await.map_err(|source| {
            let bootstrap = &self.shared.config.bootstrap;
            match bootstrap.first() {
                Some(reached) if !bootstrap.contains(address) => {
                    let (address, reached) = (address.clone(), reached.clone());
                    let source = Box::new(source);
                    ClientError::Advertised { node, address, reached, source }
                }
                _ => ClientError::Bootstrap(source),
            }
        })
    }

    async fn connection(&self, address: &Address, lane: Lane) -> Result<Arc<Connection>, ConnectError> {
        let key = (address.clone(), lane);
        if let Some(connection) = lock(&self.shared.connections).get(&key)
            && !connection.is_closed()
        {
            return Ok(Arc::clone(connection));
        }
        // Two callers may dial at once; the later connection stays, the earlier one serves its caller.
        let connection = Connection::open(address.clone(), self.shared.config.connection.clone()).await?;
        let connection = Arc::new(connection);
        lock(&self.shared.connections).insert(key, Arc::clone(&connection));
        Ok(connection)
    }

    /// Takes a connection that failed out of the pool.
    pub(crate) fn forget(&self, connection: &Arc<Connection>) {
        lock(&self.shared.connections).retain(|_, pooled| !Arc::ptr_eq(pooled, connection));
    }
}

/// Nothing panics while these locks are held, and what they guard is replaced as a whole.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
