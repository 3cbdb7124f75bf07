//! NVIDIA's catalogue of XID errors: what a code means and what NVIDIA says to do about it.
//!
//! It is data, `data/xid_catalog.csv`; where that comes from is in `data/README.md`. Severity is racklake's own reading of
//! NVIDIA's action.

use std::collections::BTreeMap;
use std::sync::LazyLock;

/// Which catalogue explains the codes; event rows carry it, so that an explanation can be told from a later one.
pub(crate) const VERSION: &str = "nvidia-xid-errors/gpud-4a8de33";

const CSV: &str = include_str!("../../data/xid_catalog.csv");

/// What NVIDIA says about one code.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Explanation {
    /// NVIDIA's name for it: `GSP_RPC_TIMEOUT`.
    pub(crate) mnemonic: String,
    /// In a few words.
    pub(crate) meaning: String,
    /// What to do at once: `RESET_GPU`.
    pub(crate) action: Option<String>,
    /// What to do where that does not help.
    pub(crate) investigatory_action: Option<String>,
    /// `info`, `warning`, `error` or `critical`.
    pub(crate) severity: &'static str,
}

/// The explanation of an XID; `None` for one that the catalogue does not have.
pub(crate) fn find(code: i64) -> Option<&'static Explanation> {
    static CATALOGUE: LazyLock<BTreeMap<i64, Explanation>> =
        LazyLock::new(|| CSV.lines().skip(1).filter_map(explanation).collect());
    CATALOGUE.get(&code)
}

/// Severity of an XID; one that the catalogue does not have may be anything, so somebody should look.
pub(crate) fn severity(code: i64) -> &'static str {
    find(code).map_or("error", |explanation| explanation.severity)
}

fn explanation(line: &str) -> Option<(i64, Explanation)> {
    let cells = cells(line);
    let text = |column: usize| cells.get(column).filter(|cell| !cell.is_empty()).cloned();
    let code = cells.first()?.parse().ok()?;
    let severity = severity_of(cells.get(6)?, cells.get(7)?);
    let explanation =
        Explanation { mnemonic: text(1)?, meaning: text(2)?, action: text(4), investigatory_action: text(5), severity };
    Some((code, explanation))
}

/// By what NVIDIA asks for. Where that is a workflow, by what the code foretells.
fn severity_of(action: &str, class: &str) -> &'static str {
    match (action.split('(').next().unwrap_or_default(), class) {
        ("CRITICAL", _) | ("SEE_WORKFLOW", "hard_failure") => "critical",
        ("INFO", _) => "info",
        ("WARN" | "SEE_WORKFLOW", _) => "warning",
        _ => "error",
    }
}

/// Cells of a line of CSV; a cell in quotes may hold commas.
fn cells(line: &str) -> Vec<String> {
    let (mut cells, mut quoted) = (vec![String::new()], false);
    for letter in line.chars() {
        match letter {
            '"' => quoted = !quoted,
            ',' if !quoted => cells.push(String::new()),
            letter => cells.last_mut().into_iter().for_each(|cell| cell.push(letter)),
        }
    }
    cells
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_of_the_catalogue_is_explained() {
        let lines = CSV.lines().skip(1).count();
        let found: Vec<_> = (1..=1000).filter_map(find).collect();
        assert_eq!((found.len(), lines), (172, 172));
        assert!(found.iter().all(|explanation| explanation.action.is_some()));
    }

    #[test]
    fn nvidias_actions_and_our_severities_are_those_of_the_table() {
        for (code, action, severity) in [
            (13, "RESTART_APP", "warning"),
            (48, "WORKFLOW_XID_48", "critical"),
            (63, "IGNORE", "info"),
            (79, "RESTART_BM", "critical"),
            (119, "RESET_GPU", "critical"),
            (154, "XID_154", "warning"),
        ] {
            let explanation = find(code).unwrap();
            assert_eq!((explanation.action.as_deref(), explanation.severity), (Some(action), severity), "{code}");
        }
        assert_eq!((find(9999), severity(9999)), (None, "error"));
    }

    #[test]
    fn a_cell_in_quotes_keeps_its_commas() {
        let explanation = find(45).unwrap();
        assert!(explanation.meaning.starts_with("Preemptive cleanup, due to previous errors"));
        assert_eq!(explanation.action.as_deref(), Some("WORKFLOW_XID_45"));
    }
}
