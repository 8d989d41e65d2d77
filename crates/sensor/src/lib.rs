//! Ethogram's sensor.
