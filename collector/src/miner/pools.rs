//! The pools of a miner, whatever the firmware calls their parts.

use racklake_schemas::fail_code;
use racklake_schemas::tables::miner_sample as miner;

use super::decimal::shifted;
use super::filler::Filler;
use super::json::Json;
use super::pool_url::without_secrets;

/// How far a rounded difficulty may be from that of the last share, which is exact.
const ROUNDING: f64 = 0.01;

/// The columns that are read here.
pub(super) const COLUMNS: [usize; 5] =
    [miner::POOL_URL, miner::POOL_STATUS, miner::POOLS_ALIVE, miner::POOLS_CONFIGURED, miner::POOL_DIFFICULTY];

/// Whether the firmware says that the pool answers.
pub(super) fn is_alive(pool: &Json) -> bool {
    status(pool).is_some_and(|status| status.eq_ignore_ascii_case("alive"))
}

/// The sum of a counter over all pools, by the first of the names that a pool has; `None` where no pool has it.
pub(super) fn sum(pools: &[Json], names: &[&str]) -> Option<i64> {
    let count = |pool: &Json| shifted(any(pool, names)?, 0).ok();
    let counts: Vec<i64> = pools.iter().filter_map(count).collect();
    if counts.is_empty() { None } else { counts.into_iter().try_fold(0i64, i64::checked_add) }
}

/// Reads the columns of pools. Without a pool in use there is no URL, status or difficulty, and none of them has failed.
pub(super) fn fill(filler: &mut Filler<'_>, pools: &[Json]) {
    let configured = pools.iter().filter(|pool| any(pool, &["URL", "url"]).is_some_and(|url| !url.trim().is_empty()));
    filler.read(miner::POOLS_CONFIGURED, configured.count() as i64);
    filler.read(miner::POOLS_ALIVE, pools.iter().filter(|pool| is_alive(pool)).count() as i64);
    let Some(pool) = in_use(pools) else { return };
    match any(pool, &["URL", "url"]) {
        None => filler.absent(miner::POOL_URL),
        Some(url) => match without_secrets(url) {
            Some(url) => filler.read(miner::POOL_URL, url),
            None => filler.row.fail(miner::POOL_URL, fail_code::UNPARSABLE),
        },
    }
    filler.word(miner::POOL_STATUS, status(pool));
    match difficulty(pool) {
        Some(difficulty) => filler.read(miner::POOL_DIFFICULTY, difficulty),
        None => filler.absent(miner::POOL_DIFFICULTY),
    }
}

/// The pool that work comes from. A firmware that does not tell it works for the first one that answers.
fn in_use(pools: &[Json]) -> Option<&Json> {
    let says = |pool: &Json| ["Stratum Active", "stratum-active"].iter().find_map(|name| pool.get(name).map(truth));
    if pools.iter().any(|pool| says(pool).is_some()) {
        return pools.iter().find(|pool| says(pool) == Some(true));
    }
    let priority = |pool: &&Json| any(pool, &["Priority", "priority"]).and_then(|text| shifted(text, 0).ok());
    pools.iter().filter(|pool| is_alive(pool)).min_by_key(|pool| priority(pool).unwrap_or(i64::MAX))
}

fn truth(value: &Json) -> bool {
    match value {
        Json::Bool(value) => *value,
        other => other.text().is_some_and(|text| text.eq_ignore_ascii_case("true")),
    }
}

fn status(pool: &Json) -> Option<&str> {
    any(pool, &["Status", "status"])
}

fn any<'a>(json: &'a Json, names: &[&str]) -> Option<&'a str> {
    names.iter().find_map(|name| json.text_of(name))
}

/// The difficulty that the pool asks for. Where it is told as `524K` only, that of the last share is exact, unless it is
/// another one.
fn difficulty(pool: &Json) -> Option<f64> {
    let number = |text: &str| text.trim().parse::<f64>().ok().filter(|value| value.is_finite() && *value > 0.0);
    if let Some(exact) = any(pool, &["Stratum Difficulty"]).and_then(number) {
        return Some(exact);
    }
    let text = any(pool, &["Diff", "diff"])?.trim();
    let rounded = match text.as_bytes().last().and_then(|unit| b"KMGTPE".iter().position(|known| known == unit)) {
        None => return number(text),
        Some(power) => number(&text[..text.len() - 1])? * 1000f64.powi(power as i32 + 1),
    };
    let last = any(pool, &["Last Share Difficulty", "lsdiff"]).and_then(number);
    last.filter(|last| (last / rounded - 1.0).abs() < ROUNDING).or(Some(rounded))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rounded_difficulty_is_made_exact_by_the_last_share() {
        for (pool, expected) in [
            (r#"{"Stratum Difficulty":65536.0,"Diff":"1K"}"#, Some(65_536.0)),
            (r#"{"Diff":"524K","Last Share Difficulty":524288.0}"#, Some(524_288.0)),
            (r#"{"Diff":"1M","Last Share Difficulty":524288.0}"#, Some(1_000_000.0)),
            (r#"{"diff":"2048.0000","lsdiff":0}"#, Some(2048.0)),
            (r#"{"Diff":""}"#, None),
            (r#"{"Diff":"K"}"#, None),
            (r#"{}"#, None),
        ] {
            assert_eq!(difficulty(&Json::parse(pool.as_bytes()).unwrap()), expected, "{pool}");
        }
    }

    #[test]
    fn the_pool_in_use_is_the_one_that_is_told_or_the_first_that_answers() {
        let pools = |text: &str| Json::parse(text.as_bytes()).unwrap().items().to_vec();
        let url = |pools: &[Json]| in_use(pools).and_then(|pool| any(pool, &["URL", "url"]).map(str::to_owned));
        let told = pools(r#"[{"URL":"a","Stratum Active":false},{"URL":"b","Stratum Active":"true"}]"#);
        assert_eq!(url(&told).as_deref(), Some("b"));
        let untold = pools(
            r#"[{"url":"a","status":"Dead","priority":0},{"url":"c","status":"Alive","priority":2},
               {"url":"b","status":"alive","priority":1}]"#,
        );
        assert_eq!(url(&untold).as_deref(), Some("b"));
        assert_eq!(url(&pools(r#"[{"URL":"a","Stratum Active":false,"Status":"Alive"}]"#)), None);
        assert_eq!(sum(&untold, &["accepted"]), None);
        assert_eq!(sum(&pools(r#"[{"accepted":2},{"accepted":"3"}]"#), &["Accepted", "accepted"]), Some(5));
    }
}
