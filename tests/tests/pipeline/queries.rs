//! The queries of `docs/queries` on a lake with planted faults, and with devices that only look as if they had them.

use racklake_tests::{cache, python, repository, turn};

#[test]
fn each_query_finds_what_was_planted_for_it_and_nothing_else() {
    let _turn = turn();
    let lake = cache().join("runs/queries/lake").display().to_string();
    let queries = repository().join("docs/queries").display().to_string();
    println!("{}", python::run("check_queries.py", &[&lake, &queries]).unwrap());
}
