//! Rows: behaviours with names, fed by first events and by counters.

use std::collections::{HashMap, VecDeque};

use ethogram_model::{Behaviour, Name, Tally, Timestamp};

/// Index of a row.
type RowIndex = u32;

/// A behaviour of a cgroup, with what was counted so far.
#[derive(Debug)]
struct Row {
    cgroup: u64,
    behaviour: Behaviour,
    tally: Tally,
    example: Name,
    changed: bool,
}

/// An event whose executable's path has not arrived yet.
#[derive(Debug)]
struct Waiting {
    exe: u64,
    cgroup: u64,
    behaviour: Behaviour,
    tally: Tally,
    example: Name,
    slot: Option<u32>,
}

/// Where the counts of a slot belong.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Owner {
    #[default]
    Nobody,
    Row(RowIndex),
    /// The executable is not known yet: counts are held back until it is.
    Waiting,
}

/// What was read of a slot's counter.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reading {
    pub(crate) slot: u32,
    pub(crate) count: u64,
    pub(crate) first: Timestamp,
    pub(crate) last: Timestamp,
}

#[derive(Clone, Copy, Debug, Default)]
struct Slot {
    owner: Owner,
    /// How much of the counter is in its row already.
    counted: u64,
}

/// All rows of this run.
#[derive(Debug, Default)]
pub(crate) struct Table {
    executables: HashMap<u64, Name>,
    /// `None`: free, listed in `free_rows`.
    rows: Vec<Option<Row>>,
    free_rows: Vec<RowIndex>,
    index: HashMap<(u64, Behaviour), RowIndex>,
    slots: Vec<Slot>,
    waiting: VecDeque<Waiting>,
    /// Rows that changed since they were last taken.
    changed: Vec<RowIndex>,
}

impl Table {
    pub(crate) fn name_executable(&mut self, exe: u64, path: Name) {
        self.executables.insert(exe, path);
        for _ in 0..self.waiting.len() {
            let Some(event) = self.waiting.pop_front() else {
                break;
            };
            self.place(event);
        }
    }

    /// One event of a behaviour (its source is filled in here), and where later ones are counted.
    pub(crate) fn event(
        &mut self,
        cgroup: u64,
        exe: u64,
        behaviour: Behaviour,
        time: Timestamp,
        example: Name,
        slot: Option<u32>,
    ) {
        if let Some(slot) = slot {
            self.slot(slot).owner = Owner::Waiting;
        }
        self.place(Waiting {
            exe,
            cgroup,
            behaviour,
            tally: Tally::at(time, 1),
            example,
            slot,
        });
    }

    fn place(&mut self, mut event: Waiting) {
        let source = match event.exe {
            0 => Some(Name::default()),
            exe => self.executables.get(&exe).cloned(),
        };
        let Some(source) = source else {
            self.waiting.push_back(event);
            return;
        };
        event.behaviour.source = source;
        let row = self.row(event.cgroup, event.behaviour, event.tally, event.example);
        if let Some(slot) = event.slot
            && self.slot(slot).owner == Owner::Waiting
        {
            self.slot(slot).owner = Owner::Row(row);
        }
    }

    /// The row of a behaviour, with `tally` added.
    fn row(&mut self, cgroup: u64, behaviour: Behaviour, tally: Tally, example: Name) -> RowIndex {
        let key = (cgroup, behaviour);
        if let Some(&index) = self.index.get(&key) {
            self.add(index, tally);
            return index;
        }
        let row = Row {
            cgroup,
            behaviour: key.1.clone(),
            tally,
            example,
            changed: true,
        };
        let index = match self.free_rows.pop() {
            Some(index) => {
                self.rows[index as usize] = Some(row);
                index
            }
            None => {
                self.rows.push(Some(row));
                RowIndex::try_from(self.rows.len() - 1).expect("memory ends long before 2^32 rows")
            }
        };
        self.index.insert(key, index);
        self.changed.push(index);
        index
    }

    fn add(&mut self, index: RowIndex, tally: Tally) {
        let Some(row) = &mut self.rows[index as usize] else {
            return;
        };
        row.tally = row.tally.plus(tally);
        if !row.changed {
            row.changed = true;
            self.changed.push(index);
        }
    }

    fn slot(&mut self, slot: u32) -> &mut Slot {
        let index = slot as usize;
        if self.slots.len() <= index {
            self.slots.resize(index + 1, Slot::default());
        }
        &mut self.slots[index]
    }

    /// How much of a slot's counter is accounted for.
    pub(crate) fn counted(&self, slot: u32) -> u64 {
        self.slots.get(slot as usize).map_or(0, |slot| slot.counted)
    }

    /// Takes a counter's reading: what it grew by goes to its row.
    ///
    /// The ring must have been drained after the reading was taken, so that the owner is known.
    pub(crate) fn reading(&mut self, reading: Reading) {
        let slot = *self.slot(reading.slot);
        let Owner::Row(index) = slot.owner else {
            return;
        };
        let grown = reading.count.saturating_sub(slot.counted);
        if grown == 0 {
            return;
        }
        self.slot(reading.slot).counted = reading.count;
        // What grew since the last reading happened after it; the first counted event is dated.
        let first = if slot.counted == 0 {
            reading.first.min(reading.last)
        } else {
            reading.last
        };
        self.add(
            index,
            Tally {
                count: grown,
                first,
                last: reading.last,
            },
        );
    }

    /// Forgets who owns a slot, before it is used for another behaviour.
    pub(crate) fn release(&mut self, slot: u32) {
        *self.slot(slot) = Slot::default();
    }

    /// Drops the rows of cgroups that are gone and taken for the last time.
    pub(crate) fn forget(&mut self, gone: impl Fn(u64) -> bool) {
        for index in 0..self.rows.len() {
            if self.rows[index]
                .as_ref()
                .is_some_and(|row| gone(row.cgroup) && !row.changed)
                && let Some(row) = self.rows[index].take()
            {
                self.index.remove(&(row.cgroup, row.behaviour));
                self.free_rows.push(index as RowIndex);
            }
        }
    }

    /// The rows that changed, with their cumulative tallies: (cgroup, behaviour, tally, example).
    pub(crate) fn take_changed(&mut self) -> Vec<(u64, Behaviour, Tally, Name)> {
        let changed = std::mem::take(&mut self.changed);
        changed
            .into_iter()
            .filter_map(|index| {
                let row = self.rows[index as usize].as_mut()?;
                row.changed = false;
                Some((
                    row.cgroup,
                    row.behaviour.clone(),
                    row.tally,
                    row.example.clone(),
                ))
            })
            .collect()
    }

    /// The tally of a row, if there is one.
    pub(crate) fn tally(&self, cgroup: u64, behaviour: &Behaviour) -> Option<Tally> {
        let index = self.index.get(&(cgroup, behaviour.clone()))?;
        self.rows[*index as usize].as_ref().map(|row| row.tally)
    }

    /// Number of rows.
    pub(crate) fn len(&self) -> usize {
        self.index.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ethogram_model::Kind;

    fn open(path: &str) -> Behaviour {
        Behaviour::new(Kind::File, Name::default(), Name::from(path))
    }

    fn reading(slot: u32, count: u64, time: i64) -> Reading {
        Reading {
            slot,
            count,
            first: Timestamp(time),
            last: Timestamp(time),
        }
    }

    fn counts(table: &mut Table) -> Vec<(String, u64)> {
        let mut rows: Vec<_> = table
            .take_changed()
            .into_iter()
            .map(|(_, b, tally, _)| (format!("{} {}", b.source, b.target), tally.count))
            .collect();
        rows.sort();
        rows
    }

    #[test]
    fn the_first_event_is_counted_by_its_record_and_later_ones_by_the_slot() {
        let mut table = Table::default();
        table.name_executable(1, Name::from("/bin/a"));
        table.event(7, 1, open("/x"), Timestamp(10), Name::default(), Some(0));
        table.reading(reading(0, 4, 20));
        table.reading(reading(0, 4, 20));
        assert_eq!(counts(&mut table), [("/bin/a /x".to_owned(), 5)]);
        table.reading(reading(0, 6, 30));
        assert_eq!(counts(&mut table), [("/bin/a /x".to_owned(), 7)]);
        assert_eq!(counts(&mut table), []);
    }

    #[test]
    fn two_keys_with_one_name_are_one_row() {
        let mut table = Table::default();
        table.name_executable(1, Name::from("/bin/a"));
        table.event(7, 1, open("/x"), Timestamp(10), Name::default(), Some(0));
        table.event(7, 1, open("/x"), Timestamp(11), Name::default(), Some(1));
        table.event(7, 1, open("/x"), Timestamp(12), Name::default(), None);
        table.reading(reading(0, 1, 20));
        table.reading(reading(1, 2, 20));
        assert_eq!(counts(&mut table), [("/bin/a /x".to_owned(), 6)]);
    }

    #[test]
    fn events_wait_for_the_name_of_their_executable() {
        let mut table = Table::default();
        table.event(7, 1, open("/x"), Timestamp(10), Name::default(), Some(0));
        table.reading(reading(0, 4, 20));
        assert_eq!(counts(&mut table), []);
        table.name_executable(1, Name::from("/bin/a"));
        table.reading(reading(0, 5, 20));
        assert_eq!(counts(&mut table), [("/bin/a /x".to_owned(), 6)]);
    }

    #[test]
    fn a_released_slot_starts_anew_for_its_next_owner() {
        let mut table = Table::default();
        table.name_executable(1, Name::from("/bin/a"));
        table.event(7, 1, open("/x"), Timestamp(10), Name::default(), Some(0));
        table.reading(reading(0, 4, 20));
        table.release(0);
        table.reading(reading(0, 9, 25));
        table.event(7, 1, open("/y"), Timestamp(30), Name::default(), Some(0));
        table.reading(reading(0, 2, 40));
        assert_eq!(
            counts(&mut table),
            [("/bin/a /x".to_owned(), 5), ("/bin/a /y".to_owned(), 3)]
        );
    }

    #[test]
    fn a_slot_given_back_and_taken_by_another_key_follows_the_last_record() {
        let mut table = Table::default();
        table.name_executable(1, Name::from("/bin/a"));
        table.event(7, 1, open("/x"), Timestamp(10), Name::default(), Some(0));
        table.event(7, 1, open("/y"), Timestamp(11), Name::default(), Some(0));
        table.reading(reading(0, 2, 20));
        assert_eq!(
            counts(&mut table),
            [("/bin/a /x".to_owned(), 1), ("/bin/a /y".to_owned(), 3)]
        );
    }

    #[test]
    fn a_clock_that_is_set_back_or_forth_changes_no_count_and_keeps_first_before_last() {
        let mut table = Table::default();
        table.name_executable(1, Name::from("/bin/a"));
        let behaviour = || open("/x");
        table.event(
            7,
            1,
            behaviour(),
            Timestamp(1_000),
            Name::default(),
            Some(0),
        );
        table.reading(reading(0, 1, 1_100));
        table.reading(reading(0, 2, 50)); // an hour back
        table.reading(reading(0, 3, 9_000)); // a day on
        let taken = table.take_changed();
        let (_, _, tally, _) = &taken[0];
        assert_eq!(
            (tally.count, tally.first, tally.last),
            (4, Timestamp(50), Timestamp(9_000))
        );
    }

    #[test]
    fn rows_of_a_gone_cgroup_are_dropped_once_taken() {
        let mut table = Table::default();
        table.name_executable(1, Name::from("/bin/a"));
        table.event(7, 1, open("/x"), Timestamp(10), Name::default(), None);
        table.event(8, 1, open("/x"), Timestamp(10), Name::default(), None);
        table.forget(|cgroup| cgroup == 7);
        assert_eq!(table.len(), 2, "not taken yet");
        table.take_changed();
        table.forget(|cgroup| cgroup == 7);
        assert_eq!(table.len(), 1);
        table.event(9, 1, open("/z"), Timestamp(10), Name::default(), None);
        assert_eq!(table.len(), 2);
    }
}
