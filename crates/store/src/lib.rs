//! Ethogram's store.
