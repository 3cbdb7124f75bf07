//! The makes of miners that a config may name.

use serde::{Deserialize, Serialize};

/// The firmware of a miner: what speaks at its ports.
///
/// Of another firmware on the same hardware (Braiins OS+, LuxOS and VNish run on Antminers) the firmware is the make.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Make {
    /// Canaan Avalon.
    Avalon,
    /// Bitmain's own firmware of Antminers.
    Antminer,
    /// MicroBT Whatsminer.
    Whatsminer,
    /// Braiins OS and OS+, on Antminers and on Braiins' own machines.
    Braiins,
    /// LuxOS, on Antminers.
    Luxos,
    /// Auradine Teraflux.
    Auradine,
    /// Bitaxe.
    Bitaxe,
    /// Elphapex.
    Elphapex,
    /// ePIC's control boards and firmware.
    Epic,
    /// ESP-Miner in the variant of Forge.
    Forgeaxe,
    /// FutureBit Apollo.
    Futurebit,
    /// Goldshell.
    Goldshell,
    /// Marathon's firmware, on Antminers and others.
    Marathon,
    /// NerdAxe and NerdQAxe.
    Nerdaxe,
    /// Proto Rig.
    Proto,
    /// Bitdeer Sealminer.
    Sealminer,
    /// VNish, on Antminers.
    Vnish,
    /// VolcMiner.
    Volcminer,
}

impl Make {
    /// All of them.
    pub const ALL: [Make; 18] = [
        Make::Avalon,
        Make::Antminer,
        Make::Whatsminer,
        Make::Braiins,
        Make::Luxos,
        Make::Auradine,
        Make::Bitaxe,
        Make::Elphapex,
        Make::Epic,
        Make::Forgeaxe,
        Make::Futurebit,
        Make::Goldshell,
        Make::Marathon,
        Make::Nerdaxe,
        Make::Proto,
        Make::Sealminer,
        Make::Vnish,
        Make::Volcminer,
    ];

    /// The name in the config.
    pub fn name(self) -> &'static str {
        match self {
            Make::Avalon => "avalon",
            Make::Antminer => "antminer",
            Make::Whatsminer => "whatsminer",
            Make::Braiins => "braiins",
            Make::Luxos => "luxos",
            Make::Auradine => "auradine",
            Make::Bitaxe => "bitaxe",
            Make::Elphapex => "elphapex",
            Make::Epic => "epic",
            Make::Forgeaxe => "forgeaxe",
            Make::Futurebit => "futurebit",
            Make::Goldshell => "goldshell",
            Make::Marathon => "marathon",
            Make::Nerdaxe => "nerdaxe",
            Make::Proto => "proto",
            Make::Sealminer => "sealminer",
            Make::Vnish => "vnish",
            Make::Volcminer => "volcminer",
        }
    }

    /// Whether this build can read it. A config that names another is refused.
    pub fn is_read(self) -> bool {
        crate::miner::reads(self)
    }

    /// Where its web interface listens unless `http_port` says otherwise.
    pub fn http_port(self) -> u16 {
        match self {
            Make::Auradine => 8080,
            Make::Epic => 4028,
            Make::Futurebit => 5000,
            _ => 80,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_make_is_named_in_the_config_as_it_names_itself() {
        for make in Make::ALL {
            assert_eq!(serde_json::from_value::<Make>(make.name().into()).unwrap(), make);
        }
        let others = Make::ALL.iter().zip(&Make::ALL[1..]);
        assert!(others.into_iter().all(|(one, next)| one < next), "each is there once, in order");
    }
}
