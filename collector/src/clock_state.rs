//! What the kernel says about its own clock: offset still to be corrected, and whether it is synchronized.
//!
//! It changes nothing and needs no right. In a container it tells the host's clock.
#![allow(unsafe_code, reason = "adjtimex has no safe wrapper; modes = 0 only reads")]

/// State of the wall clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ClockState {
    /// Offset that the kernel is still correcting, microseconds.
    pub(crate) offset_us: i64,
    /// Whether somebody keeps it synchronized.
    pub(crate) synced: bool,
}

/// Reads the state; `None` where the kernel refuses.
pub(crate) fn read() -> Option<ClockState> {
    // SAFETY: timex is plain old data for which all zeros is valid, and modes = 0 makes the call read-only.
    let (state, timex) = unsafe {
        let mut timex: libc::timex = std::mem::zeroed();
        (libc::adjtimex(&raw mut timex), timex)
    };
    if state < 0 {
        return None;
    }
    let nanoseconds = timex.status & libc::STA_NANO != 0;
    let offset = timex.offset;
    Some(ClockState {
        offset_us: if nanoseconds { offset / 1000 } else { offset },
        synced: timex.status & libc::STA_UNSYNC == 0,
    })
}
