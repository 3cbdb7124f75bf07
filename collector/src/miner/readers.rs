//! Which reader reads a make.

use super::antminer::Antminer;
#[cfg(feature = "asic-rs")]
use super::asic;
use super::avalon::Avalon;
use super::braiins::Braiins;
use super::luxos::LuxOs;
use super::others;
use super::reader::Reader;
use super::whatsminer::Whatsminer;
use crate::config::Make;

/// The reader of a make; `None` where this build has none.
pub(super) fn reader(make: Make) -> Option<&'static dyn Reader> {
    match make {
        Make::Avalon => Some(&Avalon),
        Make::Antminer => Some(&Antminer),
        Make::Braiins => Some(&Braiins),
        Make::Luxos => Some(&LuxOs),
        Make::Auradine => Some(&others::AURADINE),
        Make::Bitaxe => Some(&others::BITAXE),
        Make::Elphapex => Some(&others::ELPHAPEX),
        Make::Epic => Some(&others::EPIC),
        Make::Forgeaxe => Some(&others::FORGEAXE),
        Make::Nerdaxe => Some(&others::NERDAXE),
        Make::Proto => Some(&others::PROTO),
        Make::Sealminer => Some(&others::SEALMINER),
        #[cfg(feature = "asic-rs")]
        Make::Futurebit => Some(&asic::FUTUREBIT),
        #[cfg(feature = "asic-rs")]
        Make::Goldshell => Some(&asic::GOLDSHELL),
        #[cfg(feature = "asic-rs")]
        Make::Marathon => Some(&asic::MARATHON),
        #[cfg(feature = "asic-rs")]
        Make::Vnish => Some(&asic::VNISH),
        #[cfg(feature = "asic-rs")]
        Make::Volcminer => Some(&asic::VOLCMINER),
        Make::Whatsminer => Some(&Whatsminer),
        #[cfg(not(feature = "asic-rs"))]
        Make::Futurebit | Make::Goldshell | Make::Marathon | Make::Vnish | Make::Volcminer => None,
    }
}
