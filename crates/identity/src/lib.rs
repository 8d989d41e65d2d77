//! Ethogram's identity.
