//! The kernel's event clock and the wall clock.

use ethogram_model::Timestamp;
use rustix::time::{ClockId, Timespec, clock_gettime};

/// Translates `CLOCK_BOOTTIME` nanoseconds to wall-clock time, by the wall clock as it
/// stood when this was read. Read anew for every batch, so that a stepped clock affects
/// only what comes after the step.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    offset_ns: i64,
}

impl Clock {
    pub(crate) fn read() -> Self {
        let wall = nanoseconds(clock_gettime(ClockId::Realtime));
        let boot = nanoseconds(clock_gettime(ClockId::Boottime));
        Self {
            offset_ns: wall - boot,
        }
    }

    pub(crate) fn wall(self, boot_ns: u64) -> Timestamp {
        Timestamp(self.offset_ns.saturating_add_unsigned(boot_ns))
    }
}

/// Nanoseconds since boot, on the kernel's event clock.
pub(crate) fn boot_ns() -> u64 {
    nanoseconds(clock_gettime(ClockId::Boottime)).unsigned_abs()
}

fn nanoseconds(time: Timespec) -> i64 {
    time.tv_sec * 1_000_000_000 + time.tv_nsec
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boot_time_becomes_wall_time() {
        let clock = Clock { offset_ns: 1_000 };
        assert_eq!(clock.wall(5), Timestamp(1_005));
        assert_eq!(clock.wall(u64::MAX), Timestamp(i64::MAX));
    }
}
