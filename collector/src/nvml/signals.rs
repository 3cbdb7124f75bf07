//! The signals and the end of the worker process, which the standard library has no words for.

#![allow(unsafe_code, reason = "prctl, kill and _exit have no safe form in the standard library")]

/// Has the kernel kill this process when the thread that started it ends.
pub(super) fn end_with_parent() {
    // SAFETY: it takes plain numbers and touches no memory of ours.
    let set = unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
    if set != 0 {
        // The end of the pipe tells it too.
        tracing::debug!("prctl: {}", std::io::Error::last_os_error());
    }
}

/// Asks a child of this process that was not waited for to end.
pub(crate) fn terminate(pid: u32) {
    if let Ok(pid) = i32::try_from(pid) {
        // SAFETY: plain numbers; the pid is a child's that was not waited for, so it is nobody else's.
        unsafe { libc::kill(pid, libc::SIGTERM) };
    }
}

/// Ends this process without running what libraries have registered for its end.
pub(super) fn exit_now(code: i32) -> ! {
    // SAFETY: it does not return, and nothing of ours has to be written.
    unsafe { libc::_exit(code) }
}
