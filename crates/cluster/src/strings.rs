//! The strings of a stream, each sent once.

use crate::limits::{STRING_BYTES_MAX, STRINGS_MAX};
use ethogram_model::Name;
use std::{collections::HashMap, sync::Arc};

/// How many strings may be remembered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct StringLimits {
    pub(crate) strings_max: u32,
    pub(crate) bytes_max: u32,
}

impl Default for StringLimits {
    fn default() -> Self {
        Self {
            strings_max: STRINGS_MAX,
            bytes_max: STRING_BYTES_MAX,
        }
    }
}

/// The sender's half: numbers for strings.
pub(crate) struct Numbers {
    known: HashMap<Arc<str>, u32>,
    bytes: usize,
    limits: StringLimits,
    new: Vec<String>,
}

impl Numbers {
    pub(crate) fn new(limits: StringLimits) -> Self {
        Self {
            known: HashMap::new(),
            bytes: 0,
            limits,
            new: Vec::new(),
        }
    }

    /// Whether the next batch should begin with no strings: half of the room is used, and
    /// what the batch brings may take the other half.
    pub(crate) fn is_crowded(&self) -> bool {
        self.known.len() > self.limits.strings_max as usize / 2
            || self.bytes > self.limits.bytes_max as usize / 2
    }

    pub(crate) fn forget(&mut self) {
        self.known.clear();
        self.bytes = 0;
    }

    /// The number of a string; 0 for the empty one.
    pub(crate) fn number(&mut self, text: &str) -> u32 {
        if text.is_empty() {
            return 0;
        }
        if let Some(&number) = self.known.get(text) {
            return number;
        }
        let number = u32::try_from(self.known.len() + 1).expect("limits are 32 bits wide");
        self.known.insert(text.into(), number);
        self.bytes += text.len();
        self.new.push(text.to_owned());
        number
    }

    /// The strings numbered since this was asked last.
    pub(crate) fn take_new(&mut self) -> Vec<String> {
        std::mem::take(&mut self.new)
    }
}

/// The receiver's half: strings for numbers. What arrives is made printable first.
pub(crate) struct Strings {
    known: Vec<Name>,
    bytes: usize,
    limits: StringLimits,
}

/// More strings than announced.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct TooManyStrings;

impl Strings {
    pub(crate) fn new(limits: StringLimits) -> Self {
        Self {
            known: vec![Name::default()],
            bytes: 0,
            limits,
        }
    }

    pub(crate) fn forget(&mut self) {
        self.known.truncate(1);
        self.bytes = 0;
    }

    pub(crate) fn learn(&mut self, new: &[String]) -> Result<(), TooManyStrings> {
        for text in new {
            self.bytes += text.len();
            if self.known.len() > self.limits.strings_max as usize
                || self.bytes > self.limits.bytes_max as usize
            {
                return Err(TooManyStrings);
            }
            self.known.push(Name::from_escaped(text));
        }
        Ok(())
    }

    /// The string of a number, if it was ever sent.
    pub(crate) fn name(&self, number: u32) -> Option<&Name> {
        self.known.get(number as usize)
    }
}
