//! Entry for fuzzing (`fuzz/`): what KubeArmor streams, from any bytes.

use std::collections::HashMap;

use super::{event::Event, ledger::Ledger};
use crate::feeder::{Alert, Log};
use ethogram_model::{BootId, Run, Timestamp};
use prost::Message;
use tokio::time::Instant;

/// Takes bytes for a log and for an alert, each twice, and counts them. Returns how many rows
/// they make.
pub fn kubearmor(bytes: &[u8]) -> usize {
    let now = Timestamp(1_000_000_000);
    let instant = Instant::now();
    let mut ledger = Ledger::new(Run {
        id: "run".to_owned(),
        boot: BootId::new("boot"),
        node: String::new(),
        hooks: String::new(),
        started: now,
        last_alive: now,
        ended_cleanly: false,
    });
    for _ in 0..2 {
        let log = Log::decode(bytes).map(Event::from);
        let alert = Alert::decode(bytes).map(Event::from);
        for event in [log, alert].into_iter().flatten() {
            ledger.take(event, now, instant);
        }
    }
    ledger.settle(instant, true);
    let report = ledger.report(now, true);
    let containers: HashMap<_, _> = report.containers.iter().map(|c| (&c.key, c)).collect();
    for row in &report.observations {
        let container = containers[&row.container];
        let labels = container
            .labels
            .iter()
            .flat_map(|(key, value)| [key, value]);
        let texts = [&container.name, &container.pod, &container.image];
        let texts = texts.into_iter().chain(labels).map(String::as_str);
        let behaviour = &row.behaviour;
        for text in texts.chain([behaviour.source.as_str(), behaviour.target.as_str()]) {
            assert!(!text.chars().any(char::is_control), "{text:?}");
        }
    }
    report.observations.len()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    #[test]
    fn seeds_are_understood() {
        assert!(super::kubearmor(include_bytes!("../../../../fuzz/seeds/kubearmor/log")) > 0);
        assert!(super::kubearmor(include_bytes!("../../../../fuzz/seeds/kubearmor/alert")) > 0);
    }

    proptest! {
        /// A little of what `make fuzz` does for longer.
        #[test]
        fn any_bytes_are_taken_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..2_000)) {
            super::kubearmor(&bytes);
        }
    }
}
