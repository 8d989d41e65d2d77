//! What a collector takes of one agent, so that none of them can sink it.

use std::time::Duration;

/// Observations, endpoints and runs in a batch: some ten milliseconds of a store's time.
pub(crate) const BATCH_ROWS_MAX: u32 = 4_096;
/// Bytes of a batch before compression. The largest row, three names of a path's length
/// with every byte escaped, is 48 KiB.
pub(crate) const BATCH_BYTES_MAX: u32 = 4 << 20;
/// Batches on their way: enough to fill a line of 100 ms.
pub(crate) const IN_FLIGHT_MAX: u32 = 4;
/// Strings remembered for a stream. A node with 30 containers uses some thousand.
pub(crate) const STRINGS_MAX: u32 = 16_384;
/// Their bytes: with 5,000 agents at this bound a collector holds 5 GiB, typically a tenth.
pub(crate) const STRING_BYTES_MAX: u32 = 1 << 20;
/// Rows a second of one agent. Above, its stream is read more slowly.
pub(crate) const ROWS_PER_SECOND_MAX: u32 = 20_000;
/// Different containers that one agent may report in a day.
pub(crate) const CONTAINERS_PER_DAY_MAX: usize = 100_000;
/// Streams at a time.
pub(crate) const STREAMS_MAX: usize = 10_000;
/// Reports being written at a time; the others' batches wait in their streams.
pub(crate) const WRITES_MAX: usize = 8;
/// How long a new stream may take to say hello.
pub(crate) const HELLO_WITHIN: Duration = Duration::from_secs(10);
/// How long an agent may be silent. It says something every 15 seconds.
pub(crate) const SILENCE_MAX: Duration = Duration::from_secs(90);

/// What a collector takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Observations, endpoints and runs in a batch.
    pub batch_rows_max: u32,
    /// Bytes of a batch before compression.
    pub batch_bytes_max: u32,
    /// Batches on their way.
    pub in_flight_max: u32,
    /// Strings remembered for a stream.
    pub strings_max: u32,
    /// Their bytes.
    pub string_bytes_max: u32,
    /// Rows a second of one agent.
    pub rows_per_second_max: u32,
    /// Different containers that one agent may report in a day.
    pub containers_per_day_max: usize,
    /// Streams at a time.
    pub streams_max: usize,
    /// Reports being written at a time.
    pub writes_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            batch_rows_max: BATCH_ROWS_MAX,
            batch_bytes_max: BATCH_BYTES_MAX,
            in_flight_max: IN_FLIGHT_MAX,
            strings_max: STRINGS_MAX,
            string_bytes_max: STRING_BYTES_MAX,
            rows_per_second_max: ROWS_PER_SECOND_MAX,
            containers_per_day_max: CONTAINERS_PER_DAY_MAX,
            streams_max: STREAMS_MAX,
            writes_max: WRITES_MAX,
        }
    }
}
