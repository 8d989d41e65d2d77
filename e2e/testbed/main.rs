//! The testbed by hand: brings up what the tests use, plays their scenario, takes it down.

use anyhow::{Result, bail};
use ethogram_e2e::{
    dvwa::{self, Dvwa, Scenario},
    node::{CgroupNames, Layout, Node},
    testbed,
};
use std::time::Instant;

const USAGE: &str = "usage: testbed dvwa | down
  dvwa   starts the web and database pods, prints what each play of the scenario makes the
         web pod do, and plays it for each line of standard input; the pods stay
  down   ends all that the testbed started";

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["dvwa"] => dvwa(),
        ["down"] => testbed::down(),
        _ => bail!(USAGE),
    }
}

fn dvwa() -> Result<()> {
    let start = Instant::now();
    let say = |what: &str| eprintln!("{:6} ms  {what}", start.elapsed().as_millis());
    testbed::down()?;
    let node = Node::up("dvwa", Layout::Host, CgroupNames::Cgroupfs, dvwa::IMAGES)?;
    say(&format!("node up, CRI on {}", node.cri_socket().display()));
    let dvwa = Dvwa::start(&node)?;
    say(&format!("web {} {}", dvwa.web.ip, dvwa.web.container));
    say(&format!(
        "db  {} {}",
        dvwa.database.ip, dvwa.database.container
    ));
    for row in dvwa.truth(Scenario::default()) {
        println!(
            "{:<8} {:<18} {:<40} {:>5} {:<10} {:<6} {:?}",
            row.kind, row.source, row.target, row.port, row.protocol, row.status, row.count
        );
    }
    for line in std::io::stdin().lines() {
        line?;
        dvwa.play(Scenario::default())?;
        say("scenario played");
    }
    dvwa.leave();
    Ok(())
}
