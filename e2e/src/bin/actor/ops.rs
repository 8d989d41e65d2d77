//! The table of operations: every kind is a file with a list.

use crate::{exec, file, layout::Plan, net, rng::Rng, syscalls, unix, worker::Worker};
use anyhow::{Result, bail};

/// Something that a thread can do, again and again: it leaves everything as it found it.
pub(crate) struct Op {
    /// What `--only` and `--except` may say to mean all of its kind.
    class: &'static str,
    /// What they may say to mean this one.
    pub(crate) name: &'static str,
    /// How often it is drawn, relative to the others.
    weight: usize,
    /// Performs it, checks that the outcome is the one meant, and records it.
    pub(crate) run: fn(&mut Worker) -> Result<()>,
}

/// An entry of the table.
pub(crate) const fn op(
    class: &'static str,
    name: &'static str,
    weight: usize,
    run: fn(&mut Worker) -> Result<()>,
) -> Op {
    Op {
        class,
        name,
        weight,
        run,
    }
}

/// The operations of a plan, with the odds of each.
pub(crate) struct Mix {
    ops: Vec<&'static Op>,
    weight: usize,
}

impl Mix {
    /// Those that the plan chooses, or why there are none.
    pub(crate) fn new(plan: &Plan) -> Result<Self> {
        let lists = [file::OPS, exec::OPS, net::OPS, unix::OPS, syscalls::OPS];
        let own_network = plan.own_network.then_some(net::OWN_NETWORK_OPS);
        let all: Vec<&Op> = lists.into_iter().chain(own_network).flatten().collect();
        for word in plan.only.iter().chain(&plan.except) {
            if !all.iter().any(|op| op.is(word)) {
                bail!(
                    "there is no operation or class {word:?}; there are: {}",
                    words(&all)
                );
            }
        }
        let chosen = |op: &&Op| {
            (plan.only.is_empty() || plan.only.iter().any(|word| op.is(word)))
                && !plan.except.iter().any(|word| op.is(word))
        };
        let ops: Vec<_> = all.into_iter().filter(chosen).collect();
        match ops.iter().map(|op| op.weight).sum() {
            0 => bail!("no operation is left to perform"),
            weight => Ok(Self { ops, weight }),
        }
    }

    /// The operation to perform as the `turn`th: each once, then as the weights say.
    pub(crate) fn draw(&self, turn: u64, rng: &mut Rng) -> &'static Op {
        let first_round = usize::try_from(turn)
            .ok()
            .and_then(|turn| self.ops.get(turn));
        if let Some(op) = first_round {
            return op;
        }
        let mut left = rng.below(self.weight);
        for op in &self.ops {
            if left < op.weight {
                return op;
            }
            left -= op.weight;
        }
        unreachable!("the number drawn is below the sum of the weights")
    }
}

impl Op {
    fn is(&self, word: &str) -> bool {
        self.class == word || self.name == word
    }
}

fn words(all: &[&Op]) -> String {
    let mut text = String::new();
    let mut class = "";
    for op in all {
        if op.class != class {
            class = op.class;
            text += &format!("\n  {class}:");
        }
        text += &format!(" {}", op.name);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::Layout;
    use std::collections::HashSet;

    fn names(only: &[&str], except: &[&str]) -> Result<Vec<&'static str>> {
        let plan = Plan {
            seed: 1,
            operations: 1,
            threads: 1,
            processes: 1,
            only: only.iter().map(|word| (*word).into()).collect(),
            except: except.iter().map(|word| (*word).into()).collect(),
            own_network: false,
            layout: Layout::new("/d".into())?,
        };
        Ok(Mix::new(&plan)?.ops.iter().map(|op| op.name).collect())
    }

    #[test]
    fn every_operation_has_a_name_of_its_own() {
        let all = names(&[], &[]).unwrap();
        assert_eq!(all.iter().collect::<HashSet<_>>().len(), all.len());
    }

    #[test]
    fn classes_and_names_choose() {
        assert_eq!(
            names(&["tcp-v4", "netlink"], &[]).unwrap(),
            ["tcp-v4", "netlink-bind"]
        );
        assert_eq!(names(&["icmp"], &["icmp-raw"]).unwrap(), ["icmp-raw-v6"]);
        let (all, some) = (names(&[], &[]).unwrap(), names(&[], &["script"]).unwrap());
        assert_eq!(some.len() + 1, all.len());
    }

    #[test]
    fn a_choice_that_cannot_be_is_refused() {
        assert!(
            names(&["fiel"], &[])
                .unwrap_err()
                .to_string()
                .contains("open-read")
        );
        assert!(names(&["script"], &["script"]).is_err());
    }
}
