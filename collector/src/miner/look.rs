//! One look at one miner, by whoever has no source: what it is, and what it says.

use std::time::Duration;

use tokio::time::Instant;

use super::POLL_TIMEOUTS;
use super::exchange::Trouble;
use super::identify::{Patience, identify};
use super::poll::{Known, Poll};
use super::raw_reply::Shapes;
use super::reader::Reader;
use super::readers::reader;
use super::session::{Allowance, Peer};
use super::unidentified::Unidentified;
use crate::config::{Credentials, Make, MinerConfig};
use crate::source::Reading;

/// What was seen of a miner.
pub(crate) struct Look {
    /// Its address, `host:port`.
    pub(crate) address: String,
    /// What it is, where that is known.
    pub(crate) make: Option<Make>,
    /// Its rows and its identity. A miner that told nothing has a row that says why.
    pub(crate) reading: Reading,
    /// How long all of it took.
    pub(crate) took: Duration,
}

/// Looks at a miner. It is found out first what it is, where `miner` does not say. Comes back within six timeouts at most,
/// whatever the miner does.
pub(crate) async fn look(miner: &MinerConfig, credentials: Option<&Credentials>, timeout: Duration) -> Look {
    let began = Instant::now();
    let patience = Patience { connect: timeout, answer: timeout, end: began + timeout * POLL_TIMEOUTS };
    let make = match miner.make {
        Some(make) => Ok(make),
        None => identify(miner, patience).await,
    };
    // What is of a make that this build does not read answers, and nothing of it can be read.
    let found: Result<&'static dyn Reader, Trouble> = make.and_then(|make| reader(make).ok_or(Trouble::Unreadable));
    let reader = found.unwrap_or(&Unidentified);
    let mut known = Known::new(reader);
    if let Err(trouble) = found {
        Unidentified::remember(&mut known.memory, trouble);
    }
    let address = miner.endpoint();
    let http_address = make.map_or_else(|_| address.clone(), |make| miner.http_endpoint(make));
    let peer = Peer { address: address.clone(), http_address, credentials: credentials.cloned() };
    let end = Instant::now() + timeout * POLL_TIMEOUTS;
    let allowance = Allowance { timeout, end, is_short: false };
    let reading = Poll { peer: &peer, reader, allowance, shapes: &Shapes::default() }.run(&mut known).await;
    Look { address, make: make.ok(), reading, took: began.elapsed() }
}
