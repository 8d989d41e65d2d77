//! Names of executables, by the identity that the kernel half gives them.
//!
//! The kernel half sends a path once and remembers that it did. Neither side can keep a
//! million of them, nor tell which will be needed again: so when there are many, all are
//! forgotten, there first, and those in use are sent again with their next event.

use std::collections::HashMap;

use ethogram_model::Name;

/// The names that were sent, of two times: since all were forgotten last, and the time before.
/// For that a connection that is still coming about, or a program that runs at this moment,
/// may come with an identity of the time before.
#[derive(Debug, Default)]
pub(crate) struct Executables {
    names: HashMap<u64, Name>,
    earlier: HashMap<u64, Name>,
}

impl Executables {
    pub(crate) fn insert(&mut self, exe: u64, path: Name) {
        self.names.insert(exe, path);
    }

    pub(crate) fn get(&self, exe: u64) -> Option<&Name> {
        self.names.get(&exe).or_else(|| self.earlier.get(&exe))
    }

    /// How many the kernel half may believe to be known.
    pub(crate) fn len(&self) -> usize {
        self.names.len()
    }

    /// How many are kept.
    pub(crate) fn kept(&self) -> usize {
        self.names.len() + self.earlier.len()
    }

    /// The kernel half has forgotten what it sent, and will send again what is needed.
    pub(crate) fn begin_anew(&mut self) {
        self.earlier = std::mem::take(&mut self.names);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_known_until_it_was_forgotten_twice() {
        let mut executables = Executables::default();
        executables.insert(1, Name::from("/bin/a"));
        executables.begin_anew();
        assert_eq!(executables.get(1), Some(&Name::from("/bin/a")));
        assert_eq!(executables.len(), 0);
        executables.insert(2, Name::from("/bin/b"));
        executables.begin_anew();
        assert_eq!(executables.get(1), None);
        assert_eq!(executables.get(2), Some(&Name::from("/bin/b")));
    }
}
