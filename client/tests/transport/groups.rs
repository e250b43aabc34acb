//! Looking at groups: what is repeated, and what is said at once.

use std::time::Duration;

use highwater_client::{Client, ClientConfig, ClientError, GroupError};
use tokio::time::timeout;

use crate::peer::{Stage, client_config};

/// How long a test waits for what must happen at once.
const PATIENCE: Duration = Duration::from_secs(60);

#[tokio::test]
async fn a_broker_that_is_not_there_is_said_at_once() {
    let address = Stage::new().await.address();
    let client = Client::new(ClientConfig { retry_for: 10 * PATIENCE, ..client_config(address) });

    let listed = timeout(PATIENCE, client.list_groups()).await.expect("nobody is asked again");

    assert!(matches!(listed, Err(GroupError::Client(ClientError::Bootstrap(_)))), "{listed:?}");
}
