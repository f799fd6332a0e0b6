//! The translation vectors of `tests/vectors`, run through [`wire::translate`] in the process.
//!
//! `cargo test -p wire --test vectors -- --nocapture` prints how many pass. `CLIPROXY_VECTOR=<id>` shows one of
//! them in full, `CLIPROXY_VECTORS_SHRINK=1` takes those that pass off `tests/vectors/pending.txt`.

mod pieces;
mod translate;

#[test]
fn vectors() {
    let report = testkit::vectors::run("pending.txt", translate::attempt);
    println!("{}", report.text);
    assert!(report.problems.is_empty(), "\n  {}\n", report.problems.join("\n  "));
}
