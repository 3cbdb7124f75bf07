//! What a miner does, judged from what it says.

use super::avalon::Stats;
use super::decimal::shifted;
use super::exchange::Trouble;
use super::json::Json;

/// Bit of `ECMM` and `ECHU` that says: too hot.
const TOO_HOT: i64 = 64;
/// A stopped chip this hot has stopped for that.
const OVERHEAT_CELSIUS: i64 = 95;
/// Mining programs take minutes to tune; without a hash by then it is a fault.
const START_SECONDS: i64 = 600;

/// The five states.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    Unreachable,
    Refused,
    Sleeping,
    Mining,
    Fault,
}

impl State {
    pub(super) fn name(self) -> &'static str {
        match self {
            State::Unreachable => "unreachable",
            State::Refused => "refused",
            State::Sleeping => "sleeping",
            State::Mining => "mining",
            State::Fault => "fault",
        }
    }

    /// Severity of the event that tells of it.
    pub(super) fn severity(self) -> &'static str {
        match self {
            State::Mining | State::Sleeping => "info",
            State::Refused | State::Unreachable => "warning",
            State::Fault => "error",
        }
    }
}

/// A state and why it is not plain mining.
pub(super) type Judged = (State, Option<&'static str>);

/// The state of a miner whose commands have all failed: one that refuses is there, whatever else failed.
pub(super) fn without_replies(troubles: &[Trouble]) -> Judged {
    let answered = |trouble: &&Trouble| matches!(trouble, Trouble::Refused | Trouble::Declined);
    match troubles.iter().find(answered) {
        Some(trouble) => (State::Refused, Some(trouble.reason())),
        None => (State::Unreachable, Some(troubles.first().unwrap_or(&Trouble::Unreadable).reason())),
    }
}

/// The state that the replies tell; `None` where they do not.
pub(super) fn from_replies(summary: Option<&Json>, stats: Option<&Stats>, pools: Option<&[Json]>) -> Option<Judged> {
    let rate =
        stats.and_then(|stats| number(stats.text.get("GHSspd"), 9)).or_else(|| number(summary?.text_of("MHS 5s"), 6));
    let Some(stats) = stats else { return rate.filter(|rate| *rate > 0).map(|_| (State::Mining, None)) };
    let no_pool = pools.is_some_and(|pools| super::avalon::alive(pools) == 0);
    let no_boards = stats.boards_found().and_then(|found| number(Some(found), 0)) == Some(0);
    let Some(work) = stats.work() else { return rate.filter(|rate| *rate > 0).map(|_| (State::Mining, None)) };
    let work = work.to_ascii_lowercase();
    let says = |words: &[&str]| words.iter().any(|word| work.contains(word));
    let uptime = summary.and_then(|summary| number(summary.text_of("Elapsed"), 0));
    Some(match () {
        () if says(&["in work"]) => match rate {
            _ if no_boards => (State::Fault, Some("no hash boards")),
            Some(0) if uptime.is_some_and(|seconds| seconds < START_SECONDS) => (State::Mining, Some("starting")),
            Some(0) if no_pool => (State::Fault, Some("no pool")),
            Some(0) => (State::Fault, Some("no hashrate")),
            _ if has_dead_board(stats, uptime) => (State::Fault, Some("dead board")),
            _ => (State::Mining, None),
        },
        () if says(&["init", "start", "boot"]) => (State::Mining, Some("starting")),
        () if says(&["idle", "standby", "sleep", "stop", "off"]) => {
            let told_to = number(stats.text.get("SoftOFF"), 0).is_some_and(|code| code != 0);
            match () {
                () if is_overheated(stats, told_to) => (State::Fault, Some("overheat")),
                () if told_to => (State::Sleeping, Some("standby")),
                () if no_boards => (State::Fault, Some("no hash boards")),
                () if no_pool => (State::Fault, Some("no pool")),
                () => (State::Sleeping, Some("idle")),
            }
        }
        () => return None,
    })
}

/// Whether some board hashes and another does not, or tells of no chip.
fn has_dead_board(stats: &Stats, uptime: Option<i64>) -> bool {
    let rates = stats.text.list("MGHS").unwrap_or_default();
    let is_dead = |(index, rate): (usize, &&str)| {
        let has_no_chips = stats.text.list(&format!("PVT_T{index}")).is_some_and(|chips| chips.is_empty());
        // The rate is a mean since the start, which says nothing at first.
        let is_old = uptime.is_some_and(|seconds| seconds >= START_SECONDS);
        has_no_chips || is_old && number(Some(rate), 2) == Some(0)
    };
    let dead = rates.iter().enumerate().filter(|board| is_dead(*board)).count();
    dead > 0 && dead < rates.len()
}

/// Whether a stopped miner says that heat has stopped it.
fn is_overheated(stats: &Stats, told_to: bool) -> bool {
    let codes = ["ECMM", "ECHU"].into_iter().filter_map(|key| stats.text.list(key)).flatten();
    let too_hot = codes.filter_map(|code| number(Some(code), 0)).any(|code| code & TOO_HOT != 0);
    let hot = number(stats.text.get("TMax"), 0).is_some_and(|celsius| (OVERHEAT_CELSIUS..200).contains(&celsius));
    // Reason of the last start; 2 is heat. It says nothing about a miner that was told to sleep since.
    let was_hot = !told_to && stats.text.get("BOOTBY").is_some_and(|reason| reason.starts_with("0x02"));
    too_hot || hot || was_hot
}

fn number(text: Option<&str>, shift: i32) -> Option<i64> {
    shifted(text?, shift).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judge(text: &str, summary: &str, pool_status: &str) -> Option<Judged> {
        let stats = Stats::of_text(text);
        let summary = Json::parse(summary.as_bytes());
        let pools = Json::parse(format!(r#"[{{"Status":"{pool_status}"}}]"#).as_bytes());
        from_replies(summary.as_ref(), Some(&stats), pools.as_ref().map(Json::items))
    }

    #[test]
    fn a_state_is_what_the_miner_says_it_does() {
        use State::{Fault, Mining, Sleeping};
        let old = r#"{"Elapsed":9000,"MHS 5s":1.0}"#;
        for (text, summary, pool, state) in [
            ("SYSTEMSTATU[Work: In Work, Hash Board: 3] GHSspd[5.0]", old, "Alive", Some((Mining, None))),
            ("SYSTEMSTATU[Work: In Init, Hash Board: 3] GHSspd[0.0]", old, "Alive", Some((Mining, Some("starting")))),
            (
                "SYSTEMSTATU[Work: In Work, Hash Board: 3] GHSspd[0.0]",
                r#"{"Elapsed":9}"#,
                "Dead",
                Some((Mining, Some("starting"))),
            ),
            ("SYSTEMSTATU[Work: In Work, Hash Board: 3] GHSspd[0.0]", old, "Alive", Some((Fault, Some("no hashrate")))),
            ("SYSTEMSTATU[Work: In Work, Hash Board: 3] GHSspd[0.0]", old, "Dead", Some((Fault, Some("no pool")))),
            (
                "SYSTEMSTATU[Work: In Work, Hash Board: 0] GHSspd[0.0]",
                old,
                "Alive",
                Some((Fault, Some("no hash boards"))),
            ),
            ("SYSTEMSTATU[Work: In Idle, Hash Board: 1] SoftOFF[4]", old, "Alive", Some((Sleeping, Some("standby")))),
            ("SYSTEMSTATU[Work: In Idle, Hash Board: 1] SoftOFF[0]", old, "Alive", Some((Sleeping, Some("idle")))),
            ("SYSTEMSTATU[Work: In Idle, Hash Board: 1] ECHU[0 64]", old, "Alive", Some((Fault, Some("overheat")))),
            ("SYSTEMSTATU[Work: In Idle, Hash Board: 1] TMax[104]", old, "Alive", Some((Fault, Some("overheat")))),
            ("SYSTEMSTATU[Work: In Idle, Hash Board: 1] BOOTBY[0x02.0]", old, "Alive", Some((Fault, Some("overheat")))),
            (
                "SYSTEMSTATU[Work: In Idle, Hash Board: 1] BOOTBY[0x02.0] SoftOFF[5]",
                old,
                "Alive",
                Some((Sleeping, Some("standby"))),
            ),
            (
                "SYSTEMSTATU[Work: In Work, Hash Board: 2] GHSspd[5.0] MGHS[5.0 0.00]",
                old,
                "Alive",
                Some((Fault, Some("dead board"))),
            ),
            (
                "SYSTEMSTATU[Work: In Work, Hash Board: 2] GHSspd[5.0] MGHS[5.0 3.0] PVT_T0[60 61] PVT_T1[ ]",
                old,
                "Alive",
                Some((Fault, Some("dead board"))),
            ),
            (
                "SYSTEMSTATU[Work: In Work, Hash Board: 2] GHSspd[5.0] MGHS[5.0 0.00]",
                r#"{"Elapsed":9}"#,
                "Alive",
                Some((Mining, None)),
            ),
            ("SYSTEMSTATU[???] GHSspd[5.0]", old, "Alive", Some((Mining, None))),
            ("SYSTEMSTATU[Work: In Doubt, Hash Board: 1]", old, "Alive", None),
            ("Ver[1]", "{}", "Alive", None),
        ] {
            assert_eq!(judge(text, summary, pool), state, "{text}");
        }
    }
}
