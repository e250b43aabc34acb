//! The broker: listeners, dispatch, one handler file per API, partitions, metrics.
