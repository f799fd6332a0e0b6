//! Every row of the checklist's sections that are typed by operators has a test here.
//!
//! Enters: the rows by section, the sources of this folder. Leaves: nothing, when each row is in the name of a
//! test: `row_36_39_and_40_…` is for three, `row_41_to_45_…` for five.

use std::collections::BTreeSet;
use std::path::Path;

/// A: health, inventory, metrics, logs.
const HEALTH: [u32; 14] = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14];
/// B: updates, containers, start.
const START: [u32; 4] = [15, 16, 19, 155];
/// C: quota and management.
const QUOTA: [u32; 19] = [20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31, 32, 33, 105, 147, 150, 151, 152];
/// D: onboarding, prefixes, routing.
const ROUTING: [u32; 25] = [
    34, 35, 36, 37, 38, 39, 40, 41, 42, 43, 44, 45, 46, 47, 48, 49, 50, 120, 121, 122, 123, 128, 135, 139,
    159,
];
/// H: body shapes and translation.
const SHAPES: [u32; 26] = [
    67, 68, 74, 81, 82, 83, 90, 91, 92, 95, 96, 97, 98, 99, 100, 101, 116, 119, 126, 127, 129, 137, 138, 140,
    146, 156,
];
/// I: streaming, WebSocket, deployment.
const STREAMING: [u32; 18] =
    [86, 87, 93, 103, 106, 109, 110, 112, 113, 114, 134, 142, 149, 154, 158, 160, 161, 182];

/// The rows that a test's name begins with.
fn rows(name: &str) -> Vec<u32> {
    let mut found: Vec<u32> = Vec::new();
    let mut range = false;
    for word in name.split('_') {
        match word.parse::<u32>() {
            Ok(row) if range => {
                let from = found.last().map_or(row, |last| last + 1);
                found.extend(from..=row);
                range = false;
            }
            Ok(row) => found.push(row),
            Err(_) if word == "to" => range = true,
            Err(_) if word == "and" => {}
            Err(_) => break,
        }
    }
    found
}

#[test]
fn every_row_that_is_typed_has_a_test() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/suite/runbook");
    let mut tested = BTreeSet::new();
    for entry in std::fs::read_dir(folder).expect("the folder can be read").flatten() {
        let text = std::fs::read_to_string(entry.path()).expect("the source can be read");
        let names = text.lines().filter_map(|line| line.trim_start().strip_prefix("fn row_"));
        tested.extend(names.flat_map(rows));
    }
    let all = HEALTH.iter().chain(&START).chain(&QUOTA).chain(&ROUTING).chain(&SHAPES).chain(&STREAMING);
    let missing: Vec<_> = all.filter(|row| !tested.contains(row)).collect();
    assert!(missing.is_empty(), "no test is named after these rows: {missing:?}");
}

#[test]
fn names_say_their_rows() {
    assert_eq!(rows("36_39_40_and_45_keys_take_turns"), [36, 39, 40, 45]);
    assert_eq!(rows("41_to_43_and_7_ways_out"), [41, 42, 43, 7]);
}
