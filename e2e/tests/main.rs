//! The real binary on real containers. Tests run one after the other, because they share
//! two cores and one kernel, and share nodes, because starting them is what takes time.
//!
//! `ETHOGRAM_E2E_KEEP=1` leaves the testbed up afterwards; `e2e/testbed/down.sh` ends it.

mod suite;

use ethogram_e2e::testbed;
use libtest_mimic::{Arguments, Failed, Trial};
use std::{
    process::ExitCode,
    sync::Mutex,
    time::{Duration, Instant},
};

/// How long each test took, with what it set up for those after it.
static TIMES: Mutex<Vec<(&str, Duration)>> = Mutex::new(Vec::new());

fn main() -> ExitCode {
    let mut args = Arguments::from_args();
    args.test_threads = Some(1);
    let listing = args.list;
    if !listing && let Err(error) = testbed::down() {
        eprintln!("cannot clean up after an earlier run: {error:#}");
        return ExitCode::FAILURE;
    }
    let trials = suite::TESTS
        .iter()
        .map(|(name, test)| trial(name, *test))
        .collect();
    let conclusion = libtest_mimic::run(&args, trials);
    if listing {
        return conclusion.exit_code();
    }
    for (name, time) in TIMES
        .lock()
        .expect("tests that panic do not hold it")
        .iter()
    {
        println!("{:8.1} s  {name}", time.as_secs_f64());
    }
    if std::env::var_os("ETHOGRAM_E2E_KEEP").is_none()
        && let Err(error) = testbed::down()
    {
        eprintln!("cannot take the testbed down: {error:#}");
        return ExitCode::FAILURE;
    }
    conclusion.exit_code()
}

fn trial(name: &'static str, test: fn() -> anyhow::Result<()>) -> Trial {
    Trial::test(name, move || {
        let start = Instant::now();
        let outcome = test();
        TIMES
            .lock()
            .expect("tests that panic do not hold it")
            .push((name, start.elapsed()));
        outcome.map_err(|error| Failed::from(format!("{error:#}")))
    })
}
