//! `discover`: searches ranges of addresses for miners and prints what it found: a table, or lines for the config file.
//!
//! It changes nothing, reads each miner once, and sends no password unless it is given one.

use std::fmt::Write as _;
use std::io::Write as _;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, bail};
use futures::StreamExt as _;
use indicatif::{ProgressBar, ProgressStyle};
use ipnet::IpNet;
use racklake_schemas::settings;
use serde::Serialize;
use serde_json::{Value, json};

use crate::config::{Credentials, Make, MinerConfig, check_range};
use crate::miner::{Look, Pace, Seen, addresses, look, search};
use crate::probe::{Shown, credentials};

/// Miners that are read at once.
const READS_AT_ONCE: usize = 32;

/// Where to search, and what to print.
#[derive(Debug, clap::Args)]
pub struct Discover {
    /// Addresses, such as 10.20.0.0/22 or 10.20.0.15; /16 at most.
    #[arg(required = true, value_name = "RANGE", value_parser = range_of)]
    ranges: Vec<IpNet>,
    /// Prints what would be read, and what each miner says of itself, in place of lines for the config file.
    #[arg(long)]
    dry_run: bool,
    /// JSON in place of text.
    #[arg(long)]
    json: bool,
    /// Rack of the miners, for the config file.
    #[arg(long)]
    rack: Option<String>,
    /// A file of users and passwords, as in the config; each miner is sent those of --credentials.
    #[arg(long, value_name = "FILE", requires = "credentials")]
    credentials_file: Option<PathBuf>,
    /// The name of the miners' user and password in that file, and in the lines for the config file.
    #[arg(long, value_name = "NAME")]
    credentials: Option<String>,
    /// How long one answer may take.
    #[arg(long, default_value = "3s", value_parser = settings::parse_duration)]
    timeout: Duration,
    /// Addresses at once; each has one connection at most.
    #[arg(long, default_value_t = 128, value_parser = clap::value_parser!(u16).range(1..=1024))]
    at_once: u16,
}

/// What was found.
struct Found {
    asked: usize,
    miners: Vec<Look>,
    /// Miners of makes that this build does not read.
    unread: Vec<(IpAddr, Make)>,
    /// Addresses where something answers that is no known miner.
    others: Vec<IpAddr>,
}

/// Searches and prints.
///
/// # Errors
/// When an argument cannot be used.
pub async fn discover(wanted: &Discover) -> Result<()> {
    for (index, range) in wanted.ranges.iter().enumerate() {
        if let Err(text) = check_range(range) {
            bail!(text);
        }
        let overlaps = |other: &&IpNet| other.contains(range) || range.contains(*other);
        if let Some(other) = wanted.ranges[..index].iter().find(overlaps) {
            bail!("{range} and {other} overlap; leave one out");
        }
    }
    let credentials = credentials(wanted.credentials_file.as_ref(), wanted.credentials.as_deref())?;
    let found = find(wanted, credentials.as_ref()).await;
    let text = match (wanted.json, wanted.dry_run) {
        (true, _) => json(&found).to_string(),
        (false, true) => table(&found),
        (false, false) => lines(&found, wanted)?,
    };
    // Whoever reads it may have seen enough (head).
    let _ = writeln!(std::io::stdout(), "{}", text.trim_end());
    Ok(())
}

async fn find(wanted: &Discover, credentials: Option<&Credentials>) -> Found {
    let all: Vec<IpAddr> = wanted.ranges.iter().flat_map(addresses).collect();
    let mut found = Found { asked: all.len(), miners: Vec::new(), unread: Vec::new(), others: Vec::new() };
    let mut makes = Vec::new();
    // Where standard error is no terminal, it draws nothing.
    let bar = ProgressBar::new(all.len() as u64);
    if let Ok(style) = ProgressStyle::with_template("{bar:40} {pos}/{len} addresses, {msg}, {eta} left") {
        bar.set_style(style);
    }
    let pace = Pace { at_once: usize::from(wanted.at_once), answer: wanted.timeout };
    search(all, pace, |searched| {
        match searched.make {
            Ok(make) if make.is_read() => makes.push((searched.address, make)),
            Ok(make) => found.unread.push((searched.address, make)),
            Err(Seen::Something) => found.others.push(searched.address),
            Err(Seen::Nothing) => {}
        }
        bar.set_message(format!("{} miners", makes.len() + found.unread.len()));
        bar.inc(1);
    })
    .await;
    bar.finish_and_clear();
    makes.sort_unstable();
    found.unread.sort_unstable();
    found.others.sort_unstable();
    let looks = futures::stream::iter(makes).map(|(address, make)| async move {
        let miner = MinerConfig { make: Some(make), ..MinerConfig::at(&address.to_string()) };
        look(&miner, credentials, wanted.timeout).await
    });
    found.miners = looks.buffered(READS_AT_ONCE).collect().await;
    found
}

fn json(found: &Found) -> Value {
    let read = found.miners.iter().map(|seen| {
        let Shown { device_id, vendor, model, firmware, state, reason } = Shown::of(seen);
        json!({
            "address": seen.address, "make": seen.make.map(Make::name), "is_read": true, "device_id": device_id,
            "vendor": vendor, "model": model, "firmware": firmware, "state": state, "reason": reason,
        })
    });
    let unread = found.unread.iter().map(|(address, make)| {
        json!({"address": MinerConfig::at(&address.to_string()).endpoint(), "make": make.name(), "is_read": false})
    });
    let miners: Vec<Value> = read.chain(unread).collect();
    json!({"addresses": found.asked, "miners": miners, "others": found.others})
}

/// What would be read, one line each.
fn table(found: &Found) -> String {
    let mut text = String::new();
    let widths = [22, 12, 34, 22];
    let mut line = |cells: [&str; 5]| {
        let [a, b, c, d] = widths;
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{:<a$} {:<b$} {:<c$} {:<d$} {}", cells[0], cells[1], cells[2], cells[3], cells[4]);
    };
    line(["ADDRESS", "MAKE", "DEVICE", "MODEL", "STATE"]);
    for seen in &found.miners {
        let shown = Shown::of(seen);
        let state = [shown.state, shown.reason].into_iter().flatten().collect::<Vec<_>>().join(": ");
        let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
        let (id, model) = (or_dash(shown.device_id), or_dash(shown.model));
        line([&seen.address, seen.make.map_or("-", Make::name), &id, &model, &state]);
    }
    for (address, make) in &found.unread {
        line([&MinerConfig::at(&address.to_string()).endpoint(), make.name(), "-", "-", "not read by this build"]);
    }
    text.push_str(&summary(found, ""));
    text
}

fn summary(found: &Found, prefix: &str) -> String {
    let mut text = format!("{prefix}{} miners at {} addresses\n", found.miners.len(), found.asked);
    if !found.others.is_empty() {
        let others: Vec<String> = found.others.iter().map(IpAddr::to_string).collect();
        let _ = writeln!(text, "{prefix}something that is no known miner answers at {}", others.join(", "));
    }
    text
}

/// Lines for the config file.
fn lines(found: &Found, wanted: &Discover) -> Result<String> {
    #[derive(Serialize)]
    struct Lines<'a> {
        miner: [Miner<'a>; 1],
    }
    #[derive(Serialize)]
    struct Miner<'a> {
        address: &'a str,
        make: Option<&'a str>,
        rack: Option<&'a str>,
        credentials: Option<&'a str>,
    }
    let mut text = summary(found, "# ");
    for (address, make) in &found.unread {
        let _ = writeln!(text, "# {address} is of the make {}, which this build does not read", make.name());
    }
    for seen in &found.miners {
        let shown = Shown::of(seen);
        let who = [shown.model, shown.device_id].into_iter().flatten().collect::<Vec<_>>().join(", ");
        let host = seen.address.rsplit_once(':').map_or(seen.address.as_str(), |(host, _)| host);
        let miner = Miner {
            address: host.trim_matches(['[', ']']),
            make: seen.make.map(Make::name),
            rack: wanted.rack.as_deref(),
            credentials: wanted.credentials.as_deref(),
        };
        let _ = write!(text, "\n# {who}\n{}", toml::to_string(&Lines { miner: [miner] })?);
    }
    Ok(text)
}

/// A range of addresses, or one address.
fn range_of(text: &str) -> Result<IpNet, String> {
    let one = || text.parse::<IpAddr>().ok().map(IpNet::from);
    let range = text.parse::<IpNet>().ok().map(|range| range.trunc()).or_else(one);
    range.ok_or_else(|| format!("{text:?} is no range of addresses like 10.20.0.0/22"))
}

#[cfg(test)]
mod tests {
    use racklake_miner_sim::{Fault, MinerSim, Profile, Unit};

    use super::*;

    fn wanted(range: &str) -> Discover {
        Discover {
            ranges: vec![range_of(range).unwrap()],
            dry_run: true,
            json: false,
            rack: Some("m\"1".to_owned()),
            credentials_file: None,
            credentials: Some("hall".to_owned()),
            timeout: Duration::from_millis(300),
            at_once: 8,
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_is_found_is_a_config_that_is_allowed() {
        let folder = tempfile::tempdir().unwrap();
        let at = |last: u8| Some(std::net::SocketAddr::from(([127, 79, 1, last], 4028)));
        let units = vec![
            Unit { address: at(1), ..Unit::new("a", Profile::Avalon1246) },
            Unit { address: at(2), fault: Some(Fault::Idle), ..Unit::new("b", Profile::AvalonQ) },
            Unit { address: at(5), fault: Some(Fault::Hang), ..Unit::new("c", Profile::AvalonQ) },
        ];
        let _sim = MinerSim::start(units, &folder.path().join("account")).unwrap();
        let wanted = wanted("127.79.1.0/29");
        let found = find(&wanted, None).await;
        let told = json(&found);
        assert_eq!((&told["addresses"], &told["others"]), (&json!(6), &json!(["127.79.1.5"])));
        assert_eq!((&told["miners"][0]["state"], &told["miners"][1]["reason"]), (&json!("mining"), &json!("standby")));
        let shown = table(&found);
        assert!(shown.contains("127.79.1.1:4028") && shown.contains("2 miners at 6 addresses"), "{shown}");
        let text = lines(&found, &wanted).unwrap();
        let rest = "site = \"s\"\nnode = \"n\"\n[kafka]\nbootstrap_servers = \"k:9092\"\n[miners]\ncredentials_file = \"/x\"\n";
        let config: crate::Config = settings::parse(&format!("{rest}{text}"), "c.toml").unwrap();
        config.validate().unwrap();
        let miners = config.miners().miners;
        assert_eq!((miners.len(), miners[1].address.as_str(), miners[1].make), (2, "127.79.1.2", Some(Make::Avalon)));
        assert_eq!((miners[0].rack.as_deref(), miners[0].credentials.as_deref()), (Some("m\"1"), Some("hall")));
    }

    #[tokio::test]
    async fn ranges_that_are_too_large_are_refused_with_the_remedy() {
        let mut too_large = wanted("10.0.0.0/8");
        assert!(discover(&too_large).await.unwrap_err().to_string().contains("/16 or smaller"));
        too_large.ranges = vec![range_of("10.0.0.0/24").unwrap(), range_of("10.0.0.9").unwrap()];
        assert!(discover(&too_large).await.unwrap_err().to_string().contains("overlap"));
        assert!(range_of("10.0.0.1-9").unwrap_err().contains("10.20.0.0/22"));
    }
}
