//! Which reader reads a make.

use super::avalon::Avalon;
use super::reader::Reader;
use crate::config::Make;

/// The reader of a make.
pub(super) fn reader(make: Make) -> &'static dyn Reader {
    match make {
        Make::Avalon => &Avalon,
    }
}
