//! What a GPU counts that goes wrong: memory errors, remapped rows, errors of its links.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// A counter of a GPU, or, where its name begins with `nvlink`, of one of its links.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Counter {
    /// Corrected errors of the memory.
    DramCorrected,
    /// Uncorrected errors of the memory.
    DramUncorrected,
    /// Corrected errors of caches and registers.
    SramCorrected,
    /// Uncorrected errors of caches and registers, found by parity.
    SramParity,
    /// Uncorrected errors of caches and registers, found by SEC-DED.
    SramSecded,
    /// Corrected errors of the L1 cache, of a GPU that counts by place (Volta).
    L1Corrected,
    /// Uncorrected errors of the L1 cache.
    L1Uncorrected,
    /// Corrected errors of the L2 cache.
    L2Corrected,
    /// Uncorrected errors of the L2 cache.
    L2Uncorrected,
    /// Corrected errors of registers.
    RegisterCorrected,
    /// Uncorrected errors of registers.
    RegisterUncorrected,
    /// Corrected errors of texture memory.
    TextureCorrected,
    /// Uncorrected errors of texture memory.
    TextureUncorrected,
    /// Uncorrected errors of the CBU.
    CbuUncorrected,
    /// Banks that are remapped (Blackwell).
    BankRemapped,
    /// Remaps of banks that wait for a reset.
    BankRemapInactive,
    /// Rows remapped for corrected errors.
    RemappedCorrected,
    /// Rows remapped for uncorrected errors.
    RemappedUncorrected,
    /// Remaps for corrected errors that wait for a reset.
    RemapInactiveCorrected,
    /// Remaps for uncorrected errors that wait for a reset.
    RemapInactiveUncorrected,
    /// Pages retired for corrected errors.
    RetiredCorrected,
    /// Pages retired for uncorrected errors.
    RetiredUncorrected,
    /// PCIe replays.
    PcieReplay,
    /// Rollovers of the PCIe replay number.
    PcieReplayRollover,
    /// PCIe links gone from L0 to recovery.
    PcieRecovery,
    /// Correctable PCIe errors.
    PcieCorrectable,
    /// NAKs received.
    PcieNakReceived,
    /// Receiver errors.
    PcieReceiver,
    /// Bad TLPs.
    PcieBadTlp,
    /// NAKs sent.
    PcieNakSent,
    /// Bad DLLPs.
    PcieBadDllp,
    /// Non-fatal PCIe errors.
    PcieNonFatal,
    /// Fatal PCIe errors.
    PcieFatal,
    /// Unsupported requests.
    PcieUnsupportedRequest,
    /// LCRC errors.
    PcieLcrc,
    /// Lane errors.
    PcieLane,
    /// C2C interrupts.
    C2cInterrupt,
    /// C2C replays.
    C2cReplay,
    /// C2C replays back to back.
    C2cReplayB2b,
    /// NVLink CRC errors of flits.
    NvlinkCrcFlit,
    /// NVLink CRC errors of data.
    NvlinkCrcData,
    /// NVLink ECC errors of data.
    NvlinkEccData,
    /// NVLink replays.
    NvlinkReplay,
    /// NVLink recoveries.
    NvlinkRecovery,
    /// Dropped VL15 packets.
    NvlinkVl15Dropped,
    /// Malformed packets.
    NvlinkMalformed,
    /// Overrun buffers.
    NvlinkOverrun,
    /// Packets received with an error.
    NvlinkReceive,
    /// Packets received that the other side had marked.
    NvlinkReceiveRemote,
    /// General errors of receiving.
    NvlinkReceiveGeneral,
    /// Thresholds of local link integrity exceeded.
    NvlinkIntegrity,
    /// Packets discarded when sending.
    NvlinkDiscard,
    /// Links recovered.
    NvlinkRecovered,
    /// Recoveries failed.
    NvlinkRecoveryFailed,
    /// Recoveries begun.
    NvlinkRecoveryEvent,
    /// Errors left after correction.
    NvlinkEffective,
    /// Errors of symbols.
    NvlinkSymbol,
    /// Raw errors of lane 0.
    NvlinkRawLane0,
    /// Raw errors of lane 1.
    NvlinkRawLane1,
    /// Blocks sent again by PLR.
    NvlinkPlrRetry,
}

/// A count since ever, and one since the driver was loaded.
#[derive(Debug, Clone, Copy, Default)]
struct Count {
    aggregate: f64,
    volatile: f64,
}

/// The counters of a GPU or of a link.
#[derive(Debug, Clone, Default)]
pub(crate) struct Counters {
    counts: BTreeMap<Counter, Count>,
    /// What the scenario had counted already.
    planted: BTreeMap<Counter, f64>,
}

impl Counters {
    /// Adds what the scenario has counted more, or less, than before.
    pub(crate) fn plant(&mut self, planted: &BTreeMap<Counter, f64>) {
        let old = std::mem::replace(&mut self.planted, planted.clone());
        for (counter, number) in planted {
            self.add(*counter, number - old.get(counter).unwrap_or(&0.0));
        }
        for (counter, number) in old.iter().filter(|(counter, _)| !planted.contains_key(counter)) {
            self.add(*counter, -number);
        }
    }

    /// Counts on; never below nothing.
    pub(crate) fn add(&mut self, counter: Counter, number: f64) {
        let count = self.counts.entry(counter).or_default();
        count.aggregate = (count.aggregate + number).max(0.0);
        count.volatile = (count.volatile + number).max(0.0);
    }

    /// Counts what comes in so many seconds.
    pub(crate) fn advance(&mut self, per_hour: &BTreeMap<Counter, f64>, seconds: f64) {
        for (counter, rate) in per_hour {
            self.add(*counter, rate * seconds / 3600.0);
        }
    }

    /// What the driver forgets when it is loaded again.
    pub(crate) fn reset(&mut self) {
        for count in self.counts.values_mut() {
            count.volatile = 0.0;
        }
    }

    /// Since ever.
    pub(crate) fn aggregate(&self, counter: Counter) -> u64 {
        self.counts.get(&counter).map_or(0, |count| count.aggregate as u64)
    }

    /// Since the driver was loaded.
    pub(crate) fn volatile(&self, counter: Counter) -> u64 {
        self.counts.get(&counter).map_or(0, |count| count.volatile as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reset_is_of_what_was_counted_since_the_driver_was_loaded() {
        let mut counters = Counters::default();
        counters.plant(&BTreeMap::from([(Counter::DramCorrected, 10.0)]));
        counters.advance(&BTreeMap::from([(Counter::DramCorrected, 3600.0)]), 2.0);
        counters.plant(&BTreeMap::from([(Counter::DramCorrected, 15.0)]));
        assert_eq!((counters.volatile(Counter::DramCorrected), counters.aggregate(Counter::DramCorrected)), (17, 17));
        counters.reset();
        assert_eq!((counters.volatile(Counter::DramCorrected), counters.aggregate(Counter::DramCorrected)), (0, 17));
        counters.plant(&BTreeMap::new());
        assert_eq!(counters.aggregate(Counter::DramCorrected), 2, "what is planted no more is gone");
    }
}
