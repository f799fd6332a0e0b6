//! The pair matrix: each client format with each upstream format, each way of answering and each kind of content.
//!
//! `cargo test -p wire --test matrix` runs all cells and the properties; a part of a name selects some:
//! `cargo test -p wire --test matrix chat_to_claude::stream`. A cell checks what an upstream is asked and what
//! the client is told of the answer, by meaning; [`losses`] lists what a format cannot say. No cell may fail.
//!
//! | file | |
//! |---|---|
//! | `scenario.rs` | what is asked and answered |
//! | `meaning.rs` | the same, whatever the format |
//! | `chat`, `responses`, `claude`, `gemini` | the same in each format, written and read by the test |
//! | `losses.rs` | what a format cannot say |
//! | `cell.rs` | one cell: which checks |
//! | `property.rs`, `generate.rs` | the same with any content |
//! | `exchange.rs`, `broken.rs` | the checks |
#![expect(
    clippy::disallowed_types,
    clippy::panic,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test: answers are read with other code than the one under test"
)]

mod broken;
mod cell;
mod chat;
mod claude;
mod exchange;
mod format;
mod gemini;
mod generate;
mod losses;
mod meaning;
mod property;
mod responses;
mod scenario;

use cell::{Cell, Mode};
use libtest_mimic::{Arguments, Trial};
use scenario::Scenario;
use wire::Protocol;

fn main() {
    let mut trials = Vec::new();
    for client in Protocol::ALL {
        for upstream in Protocol::ALL {
            for mode in Mode::ALL {
                for scenario in Scenario::ALL {
                    let cell = Cell { client, upstream, mode, scenario };
                    trials.push(Trial::test(cell.name(), move || cell.run().map_err(Into::into)));
                }
            }
        }
    }
    for client in Protocol::ALL {
        let name = format!("property::identity::{}", format::name(client));
        trials.push(Trial::test(name, move || property::identity(client).map_err(Into::into)));
        for upstream in Protocol::ALL {
            for (what, test) in property::OF_PAIRS {
                let (from, to) = (format::name(client), format::name(upstream));
                let name = format!("property::{what}::{from}_to_{to}");
                trials.push(Trial::test(name, move || test(client, upstream).map_err(Into::into)));
            }
        }
    }
    libtest_mimic::run(&Arguments::from_args(), trials).exit();
}
