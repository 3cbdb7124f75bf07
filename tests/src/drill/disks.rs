//! Small disks of memory that can be filled up or made read-only while a service writes to them.
//!
//! They are mounts, so the drill runs in a mount namespace of its own, in which it may mount: [`in_namespace`].

use std::ffi::CString;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

/// Set in the environment of a process that may mount.
const INSIDE: &str = "RACKLAKE_DRILL_INSIDE";
/// What a disk holds when nothing is wrong with it.
const ROOM: &str = "4g";

/// Runs this program again in a mount namespace of its own, unless it is in one, and ends with its exit code. `more`: what
/// its arguments lack.
///
/// # Errors
/// When the system does not give one.
pub fn in_namespace(more: &[&str]) -> Result<()> {
    if std::env::var_os(INSIDE).is_some() {
        return Ok(());
    }
    let program = std::env::current_exe()?;
    let status = Command::new("setpriv")
        .args(["--pdeathsig", "KILL", "--", "unshare", "--map-root-user", "--mount", "--"])
        .arg(program)
        .args(std::env::args_os().skip(1))
        .args(if std::env::args().any(|argument| argument.starts_with(more[0])) { &[] } else { more })
        .env(INSIDE, "1")
        .status()
        .context("unshare and setpriv are missing; on Debian: apt-get install util-linux")?;
    std::process::exit(status.code().unwrap_or(1));
}

/// A mounted disk.
#[derive(Debug)]
pub struct Disk {
    path: PathBuf,
}

impl Disk {
    /// Mounts an empty disk at `path`.
    ///
    /// # Errors
    /// When the process may not mount.
    pub fn mount(path: PathBuf) -> Result<Disk> {
        std::fs::create_dir_all(&path)?;
        mount(&["-t", "tmpfs", "-o", &format!("size={ROOM}"), "tmpfs"], &path)?;
        Ok(Disk { path })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Leaves no room for anything more.
    ///
    /// # Errors
    /// When the disk cannot be changed.
    pub fn fill(&self) -> Result<()> {
        // Writers go on meanwhile: what they write between the two calls makes the second fail.
        for _ in 0..50 {
            if mount(&["-o", &format!("remount,size={}", self.used_bytes()?)], &self.path).is_ok() {
                return Ok(());
            }
        }
        bail!("{} could not be made full", self.path.display())
    }

    /// Refuses writing. Gives false where files that are open for writing forbid that.
    pub fn protect(&self) -> bool {
        let tries = std::iter::repeat_with(|| {
            std::thread::sleep(std::time::Duration::from_millis(5));
            mount(&["-o", "remount,ro"], &self.path).is_ok()
        });
        tries.take(200).any(|protected| protected)
    }

    /// Gives room and takes writing again.
    ///
    /// # Errors
    /// When the disk cannot be changed.
    pub fn heal(&self) -> Result<()> {
        mount(&["-o", &format!("remount,rw,size={ROOM}")], &self.path)
    }

    fn used_bytes(&self) -> Result<u64> {
        let path = CString::new(self.path.as_os_str().as_encoded_bytes())?;
        let told = statistics(&path)?;
        Ok((told.f_blocks - told.f_bfree) * told.f_frsize)
    }
}

#[allow(unsafe_code, reason = "statvfs has no safe door in the standard library")]
fn statistics(path: &std::ffi::CStr) -> Result<libc::statvfs> {
    // SAFETY: a zeroed statvfs is a valid one, and the path ends with a zero.
    let (code, told) = unsafe {
        let mut told: libc::statvfs = std::mem::zeroed();
        (libc::statvfs(path.as_ptr(), &raw mut told), told)
    };
    ensure!(code == 0, "statvfs: {}", std::io::Error::last_os_error());
    Ok(told)
}

fn mount(arguments: &[&str], path: &Path) -> Result<()> {
    let output = Command::new("mount").args(arguments).arg(path).output().context("mount is missing")?;
    let told = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "mount {} {}: {told}", arguments.join(" "), path.display());
    Ok(())
}
