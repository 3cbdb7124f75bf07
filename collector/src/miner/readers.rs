//! Which reader reads a make.

use super::antminer::Antminer;
use super::avalon::Avalon;
use super::luxos::LuxOs;
use super::reader::Reader;
use super::whatsminer::Whatsminer;
use crate::config::Make;

/// The reader of a make; `None` where this build has none.
pub(super) fn reader(make: Make) -> Option<&'static dyn Reader> {
    match make {
        Make::Avalon => Some(&Avalon),
        Make::Antminer => Some(&Antminer),
        Make::Luxos => Some(&LuxOs),
        Make::Whatsminer => Some(&Whatsminer),
        _ => None,
    }
}
