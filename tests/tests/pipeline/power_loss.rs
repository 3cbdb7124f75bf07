//! A host that loses power: what its disk did not have yet is lost, and coverage says how much that may be.
//!
//! The collector's state lies on a real ext4 file system that is shut down the way a loss of power does it: what was not
//! waited for is gone. That takes the right to mount one; without it the test says that it has not been run.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use racklake_nvml_sim::Scenario;
use racklake_tests::process::Process;
use racklake_tests::site::{PARTITIONS, Site};
use racklake_tests::{binaries, count_lines, kafka, python, turn, wait_for};

const TABLES: [&str; 4] = ["gpu_sample", "event", "device", "coverage"];
const SCENARIO: &str = "account = \"gpu.jsonl\"\n[[gpu]]\ncount = 4\n";
const LOSSES: usize = 3;
/// Reads that the disk may not have: those of a second and what the disk takes to be waited for, which under load is
/// another two seconds, of four GPUs every 50 ms.
const AT_MOST: usize = 3 * 4 * 20;

/// A disk, the host it is in, and how often that has been booted.
struct Host<'a> {
    site: &'a Site,
    keeper: Process,
    boots: usize,
}

/// Makes the disk; says why where this process may not mount it.
fn make_disk(site: &Site) -> Result<(), String> {
    let (image, disk) = (site.folder.join("disk.ext4"), disk(site));
    std::fs::create_dir_all(&disk).unwrap();
    File::create(&image).unwrap().set_len(64 << 20).unwrap();
    let (image, disk) = (image.display(), disk.display());
    let boot_id = "mount --bind /dev/null /proc/sys/kernel/random/boot_id";
    let script = format!("mkfs.ext4 -q {image} && mount -o loop {image} {disk} && {boot_id}");
    let tried = Command::new("unshare").args(["--mount", "sh", "-c", &script]).output();
    let tried = tried.map_err(|error| error.to_string())?;
    tried.status.success().then_some(()).ok_or_else(|| String::from_utf8_lossy(&tried.stderr).trim().to_owned())
}

impl Host<'_> {
    fn new(site: &Site) -> Host<'_> {
        let keeper =
            Process::start("keeper", Path::new("unshare"), &["--mount", "sleep", "3600"], &site.folder).unwrap();
        let host = Host { site, keeper, boots: 0 };
        wait_for("a namespace of mounts", 30, || host.tries(&["true"]).then_some(())).unwrap();
        host
    }

    /// Mounts the disk and names this boot.
    fn boot(&mut self) -> Process {
        self.boots += 1;
        let (image, id) = (self.site.folder.join("disk.ext4"), self.site.folder.join("boot_id"));
        std::fs::write(&id, format!("boot-{}\n", self.boots)).unwrap();
        self.must(&["mount", "-o", "loop", &image.display().to_string(), &disk(self.site).display().to_string()]);
        self.must(&["mount", "--bind", &id.display().to_string(), "/proc/sys/kernel/random/boot_id"]);
        let program = binaries::path("racklake-collector").unwrap().display().to_string();
        let config = self.site.folder.join("node-1.toml").display().to_string();
        let enter = self.enter();
        let arguments = [&enter.each_ref().map(String::as_str)[..], &[&program, "--config", &config]].concat();
        Process::start_in("node-1", Path::new("nsenter"), &arguments, &self.site.folder, &[("NO_COLOR", "1")]).unwrap()
    }

    /// All at once: the collector stands still, what its disk does not have is gone, and so is the collector.
    fn lose_power(&self, collector: &mut Process) {
        collector.signal("STOP").unwrap();
        let seen = PathBuf::from(format!("/proc/{}/root{}", self.keeper.pid(), disk(self.site).display()));
        shut_down(&File::open(seen).unwrap());
        collector.kill().unwrap();
        self.must(&["umount", "/proc/sys/kernel/random/boot_id"]);
        self.must(&["umount", &disk(self.site).display().to_string()]);
    }

    fn enter(&self) -> [String; 4] {
        ["--target".to_owned(), self.keeper.pid().to_string(), "--mount".to_owned(), "--".to_owned()]
    }

    fn tries(&self, command: &[&str]) -> bool {
        Command::new("nsenter").args(self.enter()).args(command).status().unwrap().success()
    }

    fn must(&self, command: &[&str]) {
        assert!(self.tries(command), "{command:?}");
    }
}

/// Shuts a file system down without letting it write anything more.
#[allow(unsafe_code, reason = "this ioctl has no safe door")]
fn shut_down(file: &File) {
    const FS_IOC_SHUTDOWN: u64 = 0x8004_587d;
    let no_log_flush: u32 = 2;
    // SAFETY: the call reads the number that it is given a pointer to.
    let code = unsafe { libc::ioctl(file.as_raw_fd(), FS_IOC_SHUTDOWN, &raw const no_log_flush) };
    assert_eq!(code, 0, "{}", std::io::Error::last_os_error());
}

fn disk(site: &Site) -> PathBuf {
    site.folder.join("disk")
}

/// Writes the collector's config; gives the account of its GPUs.
fn configure(site: &Site) -> PathBuf {
    let library = racklake_nvml_sim::library_path().expect("cargo builds the simulated library beside the tests");
    let scenario = Scenario::parse(SCENARIO).unwrap();
    let library = racklake_nvml_sim::install(&library, &site.folder, "node", &scenario).unwrap();
    let text = format!(
        "site = \"test\"\nnode = \"node-1\"\nstate_dir = {state:?}\n[kafka]\nbootstrap_servers = {bootstrap:?}\n\
         topic_prefix = {prefix:?}\npartitions = {PARTITIONS}\n[http]\nlisten = \"127.0.0.1:{port}\"\n\
         [spool]\nfsync_period = \"1s\"\n[kernel_log]\nenabled = false\n[nvml]\nlibrary = {library:?}\nperiod = \"50ms\"\n",
        state = disk(site).join("state").display().to_string(),
        bootstrap = site.broker.bootstrap(),
        prefix = site.prefix,
        port = kafka::free_port().unwrap(),
        library = library.display().to_string(),
    );
    std::fs::write(site.folder.join("node-1.toml"), text).unwrap();
    library.with_file_name("gpu.jsonl")
}

#[test]
fn a_loss_of_power_costs_no_more_than_coverage_says() {
    let _turn = turn();
    let site = Site::new("power_loss").unwrap();
    if let Err(reason) = make_disk(&site) {
        println!("NOT RUN: a loss of power takes a disk of its own, which cannot be mounted here: {reason}");
        return;
    }
    let ingest = site.start_ingest("ingest", "power-loss").unwrap();
    TABLES.iter().for_each(|table| site.wait_for_topic(&ingest, table).unwrap());
    let account = configure(&site);
    let mut host = Host::new(&site);
    let mut collector = host.boot();
    for loss in 0..LOSSES {
        let before = count_lines(&account);
        let answered = wait_for("the GPUs to be read", 60, || (count_lines(&account) > before + 5000).then_some(()));
        answered.unwrap_or_else(|error| panic!("{error}\n{}", collector.tail()));
        // Not always at the same moment after the disk has been waited for.
        std::thread::sleep(Duration::from_millis(300 * loss as u64));
        host.lose_power(&mut collector);
        collector = host.boot();
    }
    std::thread::sleep(Duration::from_secs(2));
    let status = collector.terminate(60).unwrap();
    assert!(status.success(), "{status}\n{}", collector.tail());
    site.wait_until_drained(&ingest, &TABLES, 60).unwrap();
    site.stop_ingest(ingest).unwrap();
    let (lake, account) = (site.lake().display().to_string(), account.display().to_string());
    let arguments = [lake.as_str(), &account, &LOSSES.to_string(), &AT_MOST.to_string()];
    println!("{}", python::run("check_killed_collector.py", &arguments).unwrap());
}
