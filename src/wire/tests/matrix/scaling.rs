//! Time is linear in what was sent: twice the input, about twice the instructions, for every reader and writer.
//!
//! Each case runs once with an input of size n and once with 2n under valgrind, which counts the instructions
//! between the call of the code under test and its return: no clock, no noise, so a quadratic path cannot hide
//! behind a fast machine. Inputs are the worst that we know.
//!
//! The cases take minutes and need valgrind, so they wait to be asked for:
//! `cargo test -p wire --test scaling -- --ignored`, a part of a name selects some.
#![expect(
    clippy::disallowed_types,
    clippy::panic,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    dead_code,
    reason = "a test: answers are made with other code than the one under test, of which the matrix uses the rest"
)]

mod chat;
mod claude;
mod format;
mod gemini;
mod large;
mod meaning;
mod responses;

use large::{Case, Work};
use libtest_mimic::{Arguments, Trial};
use std::hint::black_box;
use std::process::Command;

/// The most that twice the input may cost. A sort, or a buffer that grows, is a little over 2.
const MOST: f64 = 2.3;

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    if let [_, word, name, size] = arguments.as_slice()
        && word == "--measure"
    {
        let case = large::cases().into_iter().find(|case| case.name == *name).unwrap();
        return measured(&case.work(size.parse().unwrap()));
    }
    let trials = large::cases().into_iter().map(|case| {
        Trial::test(format!("scaling::{}", case.name), move || scales(&case).map_err(Into::into))
            .with_ignored_flag(true)
    });
    libtest_mimic::run(&Arguments::from_args(), trials.collect()).exit();
}

/// The only code whose instructions are counted.
#[inline(never)]
fn measured(work: &Work) {
    black_box(work.run());
}

fn scales(case: &Case) -> Result<(), String> {
    let grown = grows(case);
    match (grown, case.name == large::QUADRATIC) {
        (Ok(()), true) => Err("quadratic time is not found".to_owned()),
        (Err(problem), true) if problem.contains("times as many") => Ok(()),
        (grown, _) => grown,
    }
}

fn grows(case: &Case) -> Result<(), String> {
    let (once, twice) = (instructions(case, case.size)?, instructions(case, case.size * 2)?);
    let growth = twice as f64 / once as f64;
    if growth > MOST {
        return Err(format!("{once} instructions became {twice}: {growth:.2} times as many"));
    }
    Ok(())
}

/// How many instructions a case takes.
fn instructions(case: &Case, size: usize) -> Result<u64, String> {
    let run = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null", "--collect-atstart=no"])
        .arg("--toggle-collect=*measured*")
        .arg(std::env::current_exe().unwrap())
        .args(["--measure", &case.name, &size.to_string()])
        .output()
        .map_err(|error| format!("valgrind does not run (apt-get install valgrind): {error}"))?;
    let report = String::from_utf8_lossy(&run.stderr);
    let count = report.lines().find_map(|line| line.split("Collected : ").nth(1)?.trim().parse().ok());
    match count {
        Some(count) if run.status.success() && count > 10_000 => Ok(count),
        _ => Err(format!("no count of {} at {size}: {report}", case.name)),
    }
}
