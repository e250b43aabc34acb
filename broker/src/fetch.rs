//! What a fetch is made of: the partitions that it asks for, reading them, waiting for more, and the sessions that
//! outlive one request (KIP-227).
//!
//! `watch` is where partitions tell that something moved; `set` keeps what was asked and knows which partitions are
//! worth reading; `read` reads them; `session` adds the epochs and `cache` the bounds. The handler puts them together.

mod cache;
mod read;
mod session;
mod set;
mod watch;

pub(crate) use cache::{FetchSessions, Fetcher};
pub(crate) use read::{AnswerForm, Found, Reading, read};
pub(crate) use session::{Increment, Naming, Session, Settled, Superseded};
pub(crate) use set::{Ask, Key, TopicKey};
pub(crate) use watch::{Turn, Watchers};
