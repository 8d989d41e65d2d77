//! Rows: behaviours with names, fed by first events and by counters.
//!
//! Each cgroup has a budget of rows; beyond it rows fold (`ethogram_model::Folding`). A row
//! that was told already stays as it was told, and the folded row counts what came since,
//! so that whoever adds up what was told has every event once.

use std::collections::{HashMap, HashSet, VecDeque};

use ethogram_model::{Access, Behaviour, Budget, Folding, Name, NewFold, Tally, Timestamp};

use crate::executables::Executables;

/// Events that wait for the name of their executable; beyond it the one that waited longest
/// is counted without.
const WAITING_MAX: usize = 16_384;

/// Index of a row.
type RowIndex = u32;

/// A behaviour of a cgroup, with what was counted so far.
#[derive(Debug)]
struct Row {
    cgroup: u64,
    behaviour: Behaviour,
    tally: Tally,
    /// How much of the count was told.
    told: u64,
    example: Name,
    changed: bool,
}

/// The rows of one cgroup.
#[derive(Debug, Default)]
struct Group {
    folding: Folding,
    index: HashMap<Behaviour, RowIndex>,
}

/// A row that changed, as it is told.
#[derive(Debug)]
pub(crate) struct Changed {
    pub(crate) cgroup: u64,
    pub(crate) behaviour: Behaviour,
    /// Cumulative.
    pub(crate) tally: Tally,
    /// How much of the count is new.
    pub(crate) grown: u64,
    pub(crate) example: Name,
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
    executables: Executables,
    /// `None`: free, listed in `free_rows`.
    rows: Vec<Option<Row>>,
    free_rows: Vec<RowIndex>,
    budget: Budget,
    groups: HashMap<u64, Group>,
    slots: Vec<Slot>,
    waiting: VecDeque<Waiting>,
    /// Rows that changed since they were last taken.
    changed: Vec<RowIndex>,
    /// What folded since it was last taken, by cgroup.
    folds: Vec<(u64, NewFold)>,
}

impl Table {
    /// No rows, and so many for each cgroup, kind and outcome.
    pub(crate) fn new(budget: Budget) -> Self {
        Self {
            budget,
            ..Self::default()
        }
    }

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

    /// Counts an event, or lets it wait for the name of its executable.
    fn place(&mut self, event: Waiting) {
        let source = match event.exe {
            0 => Some(Name::default()),
            exe => self.executables.get(exe).cloned(),
        };
        match source {
            Some(source) => self.count(event, source),
            None => self.wait(event),
        }
    }

    fn wait(&mut self, event: Waiting) {
        self.waiting.push_back(event);
        if self.waiting.len() > WAITING_MAX
            && let Some(oldest) = self.waiting.pop_front()
        {
            self.count(oldest, Name::default());
        }
    }

    fn count(&mut self, mut event: Waiting, source: Name) {
        event.behaviour.source = source;
        let row = self.row(event.cgroup, event.behaviour, event.tally, event.example);
        if let Some(slot) = event.slot
            && self.slot(slot).owner == Owner::Waiting
        {
            self.slot(slot).owner = Owner::Row(row);
        }
    }

    /// Counts, without a source, the events of these cgroups whose executable is still not known.
    pub(crate) fn give_up_of(&mut self, cgroups: &HashSet<u64>) {
        self.give_up(|event| cgroups.contains(&event.cgroup));
    }

    /// The same for those of before a time.
    pub(crate) fn give_up_before(&mut self, time: Timestamp) {
        self.give_up(|event| event.tally.first < time);
    }

    fn give_up(&mut self, which: impl Fn(&Waiting) -> bool) {
        for event in std::mem::take(&mut self.waiting) {
            if which(&event) {
                self.count(event, Name::default());
            } else {
                self.waiting.push_back(event);
            }
        }
    }

    /// Whether what is counted in a slot waits for the name of an executable.
    pub(crate) fn is_waiting(&self, slot: u32) -> bool {
        let slot = self.slots.get(slot as usize);
        slot.is_some_and(|slot| slot.owner == Owner::Waiting)
    }

    pub(crate) fn executables(&mut self) -> &mut Executables {
        &mut self.executables
    }

    /// The row of a behaviour, with `tally` added.
    fn row(&mut self, cgroup: u64, behaviour: Behaviour, tally: Tally, example: Name) -> RowIndex {
        let budget = self.budget;
        let group = self.groups.entry(cgroup).or_insert_with(|| Group {
            folding: Folding::new(budget),
            ..Group::default()
        });
        let mut shown = group.folding.row(&behaviour).into_owned();
        loop {
            let group = self.groups.entry(cgroup).or_default();
            if let Some(&index) = group.index.get(&shown) {
                self.add(index, tally);
                return index;
            }
            if !group.folding.admit(&shown) {
                return self.new_row(cgroup, shown, tally, example);
            }
            shown = self.fold(cgroup, &behaviour);
        }
    }

    fn new_row(
        &mut self,
        cgroup: u64,
        behaviour: Behaviour,
        tally: Tally,
        example: Name,
    ) -> RowIndex {
        let row = Row {
            cgroup,
            behaviour: behaviour.clone(),
            tally,
            told: 0,
            example,
            changed: false,
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
        let group = self.groups.entry(cgroup).or_default();
        group.index.insert(behaviour, index);
        if tally.count > 0 {
            self.note_change(index);
        }
        index
    }

    /// Joins the rows of a cgroup that fold now, and returns the row of `behaviour`.
    fn fold(&mut self, cgroup: u64, behaviour: &Behaviour) -> Behaviour {
        let group = self.groups.entry(cgroup).or_default();
        // What is told apart in a folded place may in turn be too much.
        loop {
            let mut folds_further = false;
            for row in group.index.keys() {
                let shown = group.folding.row(row).into_owned();
                folds_further |=
                    shown.access.contains(Access::FOLDED) && group.folding.admit(&shown);
            }
            if !folds_further {
                break;
            }
        }
        let news = group.folding.take_news().into_iter();
        self.folds.extend(news.map(|fold| (cgroup, fold)));
        let shown = group.folding.row(behaviour).into_owned();
        let folded: Vec<(Behaviour, Behaviour)> = group
            .index
            .keys()
            .map(|row| (row.clone(), group.folding.row(row).into_owned()))
            .filter(|(row, shown)| row != shown)
            .collect();
        let mut moved = HashMap::new();
        for (row, into) in folded {
            if let Some((from, index)) = self.move_row(cgroup, &row, into) {
                moved.insert(from, index);
            }
        }
        self.changed.retain(|index| !moved.contains_key(index));
        for slot in &mut self.slots {
            if let Owner::Row(index) = &mut slot.owner
                && let Some(&into) = moved.get(index)
            {
                *index = into;
            }
        }
        self.free_rows.extend(moved.into_keys());
        shown
    }

    /// Moves what was not told of a row into another one; returns both.
    fn move_row(
        &mut self,
        cgroup: u64,
        row: &Behaviour,
        into: Behaviour,
    ) -> Option<(RowIndex, RowIndex)> {
        let group = self.groups.entry(cgroup).or_default();
        let from = group.index.remove(row)?;
        let known = group.index.get(&into).copied();
        let row = self.rows[from as usize].take()?;
        let untold = Tally {
            count: row.tally.count - row.told,
            ..row.tally
        };
        let index = match known {
            Some(index) => {
                if untold.count > 0 {
                    self.add(index, untold);
                }
                index
            }
            None => self.new_row(cgroup, into, untold, row.example),
        };
        Some((from, index))
    }

    fn add(&mut self, index: RowIndex, tally: Tally) {
        let Some(row) = &mut self.rows[index as usize] else {
            return;
        };
        row.tally = row.tally.plus(tally);
        self.note_change(index);
    }

    fn note_change(&mut self, index: RowIndex) {
        if let Some(row) = &mut self.rows[index as usize]
            && !row.changed
        {
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
    pub(crate) fn forget(&mut self, gone: &HashSet<u64>) {
        for cgroup in gone {
            let Some(group) = self.groups.get_mut(cgroup) else {
                continue;
            };
            let rows = &mut self.rows;
            let dropped = group.index.extract_if(|_, index| {
                let row = &mut rows[*index as usize];
                let is_done = row.as_ref().is_none_or(|row| !row.changed);
                if is_done {
                    *row = None;
                }
                is_done
            });
            self.free_rows.extend(dropped.map(|(_, index)| index));
            if group.index.is_empty() {
                self.groups.remove(cgroup);
            }
        }
    }

    /// What folded since the last time, by cgroup.
    pub(crate) fn take_folds(&mut self) -> Vec<(u64, NewFold)> {
        std::mem::take(&mut self.folds)
    }

    /// The rows that changed.
    pub(crate) fn take_changed(&mut self) -> Vec<Changed> {
        let changed = std::mem::take(&mut self.changed);
        changed
            .into_iter()
            .filter_map(|index| {
                let row = self.rows[index as usize].as_mut()?;
                row.changed = false;
                let grown = row.tally.count - std::mem::replace(&mut row.told, row.tally.count);
                Some(Changed {
                    cgroup: row.cgroup,
                    behaviour: row.behaviour.clone(),
                    tally: row.tally,
                    grown,
                    example: row.example.clone(),
                })
            })
            .collect()
    }

    /// The tally of a row, if there is one.
    pub(crate) fn tally(&self, cgroup: u64, behaviour: &Behaviour) -> Option<Tally> {
        let index = self.groups.get(&cgroup)?.index.get(behaviour)?;
        self.rows[*index as usize].as_ref().map(|row| row.tally)
    }

    /// Names of executables in memory.
    pub(crate) fn executables_kept(&self) -> usize {
        self.executables.kept()
    }

    /// Number of rows.
    pub(crate) fn len(&self) -> usize {
        self.groups.values().map(|group| group.index.len()).sum()
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
            .map(|row| {
                let Behaviour { source, target, .. } = row.behaviour;
                (format!("{source} {target}"), row.tally.count)
            })
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
    fn events_whose_executable_stays_unknown_are_counted_without_it() {
        let mut table = Table::default();
        table.event(7, 1, open("/x"), Timestamp(10), Name::default(), Some(0));
        table.event(8, 2, open("/x"), Timestamp(20), Name::default(), None);
        table.event(9, 3, open("/x"), Timestamp(30), Name::default(), None);
        table.reading(reading(0, 4, 20));
        assert!(table.is_waiting(0));
        table.give_up_before(Timestamp(20));
        assert!(!table.is_waiting(0));
        table.reading(reading(0, 4, 20));
        assert_eq!(counts(&mut table), [(" /x".to_owned(), 5)]);
        table.give_up_of(&HashSet::from([9]));
        assert_eq!(counts(&mut table), [(" /x".to_owned(), 1)]);
        table.name_executable(2, Name::from("/bin/b"));
        assert_eq!(counts(&mut table), [("/bin/b /x".to_owned(), 1)]);
    }

    #[test]
    fn few_events_wait_for_names() {
        let mut table = Table::default();
        for time in 0..WAITING_MAX as i64 + 5 {
            table.event(7, 1, open("/x"), Timestamp(time), Name::default(), None);
        }
        assert_eq!(counts(&mut table), [(" /x".to_owned(), 5)]);
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
        let tally = taken[0].tally;
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
        table.forget(&HashSet::from([7]));
        assert_eq!(table.len(), 2, "not taken yet");
        table.take_changed();
        table.forget(&HashSet::from([7]));
        assert_eq!(table.len(), 1);
        table.event(9, 1, open("/z"), Timestamp(10), Name::default(), None);
        assert_eq!(table.len(), 2);
    }

    /// What somebody has who joins what was told: the newest count of each row.
    fn told(table: &mut Table, known: &mut HashMap<Behaviour, u64>) {
        for row in table.take_changed() {
            assert!(row.grown > 0);
            known.insert(row.behaviour, row.tally.count);
        }
    }

    #[test]
    fn a_directory_that_folds_takes_its_files_in_and_counts_them_once() {
        let mut table = Table::new(Budget::new(128)); // four files of a directory
        table.name_executable(1, Name::from("/bin/a"));
        let mut known = HashMap::new();
        for n in 0..100_u32 {
            let path = format!("/tmp/{n}");
            table.event(7, 1, open(&path), Timestamp(10), Name::default(), Some(n));
            if n == 2 {
                told(&mut table, &mut known);
            }
        }
        assert_eq!(table.len(), 1, "all that are left are one");
        // Slots of files that were told before, of one that was not, and of one that came after.
        for slot in [0, 3, 50] {
            table.reading(reading(slot, 10, 20));
        }
        told(&mut table, &mut known);
        let mut folded = open("/tmp/*");
        folded.access = Access::FOLDED;
        folded.source = Name::from("/bin/a");
        assert_eq!(known.values().sum::<u64>(), 130);
        assert_eq!(known[&folded], 127, "three were told by their names");
        assert_eq!(table.tally(7, &folded).map(|tally| tally.count), Some(127));
        // The places of rows that are gone are used again.
        table.event(8, 1, open("/x"), Timestamp(30), Name::default(), Some(100));
        table.reading(reading(100, 1, 40));
        told(&mut table, &mut known);
        assert_eq!(known.values().sum::<u64>(), 132);
    }

    #[test]
    fn one_cgroups_flood_folds_nothing_of_another() {
        let mut table = Table::new(Budget::new(128));
        table.name_executable(1, Name::from("/bin/a"));
        for n in 0..100_u32 {
            let path = format!("/tmp/{n}");
            table.event(7, 1, open(&path), Timestamp(10), Name::default(), None);
        }
        table.event(8, 1, open("/tmp/x"), Timestamp(10), Name::default(), None);
        assert_eq!(
            counts(&mut table),
            [
                ("/bin/a /tmp/*".to_owned(), 100),
                ("/bin/a /tmp/x".to_owned(), 1)
            ]
        );
    }
}
