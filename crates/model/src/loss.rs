//! What the sensor knows it did not count.

use std::fmt;

/// Why events of a container were not counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum LossReason {
    /// The ring buffer to user space was full when a new behaviour needed a name.
    RingFull = 0,
    /// The kernel could not keep state for a task.
    TaskState = 1,
    /// The kernel object was gone before its name could be read.
    Unresolved = 2,
    /// A record from the kernel could not be decoded.
    Malformed = 3,
    /// The store's budget for this container was reached, or its disk was full.
    Store = 4,
    /// Events of this machine that were lost and may be anybody's: a kernel that preempts a
    /// program skips the events of whoever runs next on that processor. The number is the
    /// machine's, so it is the most that can be missing here.
    Unattributed = 5,
    /// A source of events that is not our own sensor said that it left some out. It does not
    /// say how many: each time counts once, so it is the least that is missing.
    Upstream = 6,
    /// An answer of a name server could not be taken in. That is no event: every row is
    /// counted, but beside an address a name may be missing.
    Names = 7,
}

impl LossReason {
    /// Every reason, in the order of their numbers.
    pub const ALL: &'static [Self] = &[
        Self::RingFull,
        Self::TaskState,
        Self::Unresolved,
        Self::Malformed,
        Self::Store,
        Self::Unattributed,
        Self::Upstream,
        Self::Names,
    ];

    /// Whether it stands for events that rows lack. (A name is no event.)
    #[must_use]
    pub const fn is_of_events(self) -> bool {
        !matches!(self, Self::Names)
    }

    /// The number that the kernel side and stores keep.
    #[must_use]
    pub const fn number(self) -> u8 {
        self as u8
    }

    /// The reason of a number.
    #[must_use]
    pub fn from_number(number: u8) -> Option<Self> {
        Self::ALL.get(usize::from(number)).copied()
    }

    /// The word that JSON and metrics use.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::RingFull => "ring_full",
            Self::TaskState => "task_state",
            Self::Unresolved => "unresolved",
            Self::Malformed => "malformed",
            Self::Store => "store",
            Self::Unattributed => "unattributed",
            Self::Upstream => "upstream",
            Self::Names => "names",
        }
    }
}

impl fmt::Display for LossReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// Events of one container known not to be counted, cumulative.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Loss {
    /// Why.
    pub reason: LossReason,
    /// How many.
    pub count: u64,
}
