//! The real binary on real containers. Tests run one after the other, because they share
//! two cores and one kernel, and share nodes, because starting them is what takes time.
//!
//! `ETHOGRAM_E2E_KEEP=1` leaves the testbed up afterwards; `e2e/testbed/down.sh` ends it.

mod suite;

use anyhow::{Context, Result};
use ethogram_e2e::testbed;
use libtest_mimic::{Arguments, Conclusion, Failed, Trial};
use std::{
    process::ExitCode,
    sync::{Mutex, MutexGuard},
    time::{Duration, Instant},
};

/// How long each test took, with what it set up for those after it.
static TIMES: Mutex<Vec<(&str, Duration)>> = Mutex::new(Vec::new());

fn main() -> ExitCode {
    let mut args = Arguments::from_args();
    args.test_threads = Some(1);
    let trials = suite::TESTS
        .iter()
        .map(|(name, test)| trial(name, *test))
        .collect();
    if args.list {
        return libtest_mimic::run(&args, trials).exit_code();
    }
    match on_the_testbed(|| libtest_mimic::run(&args, trials)) {
        Ok(conclusion) => conclusion.exit_code(),
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn on_the_testbed(run: impl FnOnce() -> Conclusion) -> Result<Conclusion> {
    let _mine = testbed::lock()?;
    testbed::down().context("cannot clean up after an earlier run")?;
    let conclusion = run();
    for (name, time) in times().iter() {
        println!("{:8.1} s  {name}", time.as_secs_f64());
    }
    if std::env::var_os("ETHOGRAM_E2E_KEEP").is_none() {
        testbed::down().context("cannot take the testbed down")?;
    }
    Ok(conclusion)
}

fn times() -> MutexGuard<'static, Vec<(&'static str, Duration)>> {
    TIMES.lock().expect("nobody panics while holding it")
}

fn trial(name: &'static str, test: fn() -> Result<()>) -> Trial {
    Trial::test(name, move || {
        let start = Instant::now();
        let outcome = test();
        times().push((name, start.elapsed()));
        outcome.map_err(|error| Failed::from(format!("{error:#}")))
    })
}
