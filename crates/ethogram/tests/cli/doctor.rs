//! `ethogram doctor`.
