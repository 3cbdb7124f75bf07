//! The services under drill: collectors with simulated GPUs and miners, ingest processes, and how each is started.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use anyhow::{Context, Result};
use racklake_miner_sim::{MinerSim, Profile, Unit};
use racklake_nvml_sim::Scenario;

use super::disks::Disk;
use crate::binaries;
use crate::kafka::free_port;
use crate::process::Process;
use crate::site::PARTITIONS;

/// Tables that a drill fills.
pub const TABLES: [&str; 6] = ["gpu_sample", "miner_sample", "hashboard_sample", "event", "device", "coverage"];
/// The consumer group of the ingest processes.
pub const GROUP: &str = "drill";

const SCENARIO: &str = "account = \"gpu.jsonl\"\n[[gpu]]\n[[gpu]]\nunsupported = [\"nvmlDeviceGetFanSpeed_v2\"]\n";
const MINERS_PER_COLLECTOR: usize = 2;

/// Where Debian has the library that sets a process's clock.
fn faketime() -> String {
    format!("/usr/lib/{}-linux-gnu/faketime/libfaketime.so.1", std::env::consts::ARCH)
}

/// A service that is killed and started again: its program, its config, and the process that runs now.
pub struct Service {
    /// Name of its log and config.
    pub name: String,
    /// Where it serves `/metrics`.
    pub http: String,
    program: &'static str,
    config: PathBuf,
    folder: PathBuf,
    environment: Vec<(String, String)>,
    running: Mutex<Option<Process>>,
}

impl Service {
    fn new(name: &str, program: &'static str, folder: &Path, config: &str, http: String) -> Result<Service> {
        let path = folder.join(format!("{name}.toml"));
        std::fs::write(&path, config)?;
        let debug = "info,racklake_ingest=debug,racklake_storage=debug,racklake_collector=debug,delta_kernel=warn";
        let environment = vec![("RUST_LOG".to_owned(), debug.to_owned()), ("NO_COLOR".to_owned(), "1".to_owned())];
        Ok(Service {
            name: name.to_owned(),
            http,
            program,
            config: path,
            folder: folder.to_owned(),
            environment,
            running: Mutex::new(None),
        })
    }

    /// Lets its wall clock be set: `file` holds the offset.
    fn with_clock(mut self, file: &Path) -> Result<Service> {
        std::fs::write(file, "+0")?;
        let file = file.display().to_string();
        for (key, value) in [
            ("LD_PRELOAD", faketime().as_str()),
            ("FAKETIME_TIMESTAMP_FILE", file.as_str()),
            ("FAKETIME_NO_CACHE", "1"),
            ("DONT_FAKE_MONOTONIC", "1"),
        ] {
            self.environment.push((key.to_owned(), value.to_owned()));
        }
        Ok(self)
    }

    /// The process, for as long as nobody else may touch it.
    pub fn hold(&self) -> MutexGuard<'_, Option<Process>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts it into the slot that is held.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(&self, slot: &mut Option<Process>) -> Result<()> {
        let program = binaries::path(self.program)?;
        let config = self.config.display().to_string();
        let environment: Vec<_> = self.environment.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        *slot = Some(Process::start_in(&self.name, &program, &["--config", &config], &self.folder, &environment)?);
        Ok(())
    }
}

/// All services of a drill but the broker.
pub struct Fleet {
    /// One per simulated node.
    pub collectors: Vec<Service>,
    /// The residents of the consumer group.
    pub ingests: Vec<Service>,
    /// An ingest process that comes and goes.
    pub guest: Service,
    /// Disk of each collector's spool.
    pub spools: Vec<Disk>,
    /// Where the wall clock of the first collector and of the last ingest is set.
    pub clocks: Vec<PathBuf>,
    /// The simulated library of each node, and what its GPUs are when nothing is wrong.
    pub gpus: Vec<(PathBuf, Scenario)>,
    /// What the simulated GPUs of each node say they served.
    pub gpu_accounts: Vec<PathBuf>,
    /// What the simulated miners say they served.
    pub miner_account: PathBuf,
    folder: PathBuf,
    prefix: String,
    miners: MinerSim,
}

/// Where the services find Kafka.
pub struct Addresses {
    /// For collectors.
    pub collectors: String,
    /// For ingest.
    pub ingests: String,
}

impl Fleet {
    /// Makes the services, and starts none but the miners. `lossy` bounds the spools tightly.
    ///
    /// # Errors
    /// When a file or disk cannot be made.
    pub fn new(
        folder: &Path,
        lake: &Path,
        prefix: &str,
        kafka: &Addresses,
        nodes: usize,
        lossy: bool,
    ) -> Result<Fleet> {
        let library = faketime();
        anyhow::ensure!(Path::new(&library).exists(), "{library} is missing; on Debian: apt-get install libfaketime");
        let miner_account = folder.join("miners.jsonl");
        let profile = |i: usize| if i.is_multiple_of(2) { Profile::Avalon1246 } else { Profile::AvalonQ };
        let units = (0..nodes * MINERS_PER_COLLECTOR).map(|i| Unit::new(&format!("miner-{i}"), profile(i))).collect();
        let miners = MinerSim::start(units, &miner_account)?;
        let ingest = |name: &str, fixed| ingest(folder, lake, prefix, &kafka.ingests, name, fixed);
        let clock = folder.join("ingest-3.clock");
        let mut fleet = Fleet {
            // Two that keep their place in the group over a restart, and one that is a new member each time.
            ingests: vec![
                ingest("ingest-1", true)?,
                ingest("ingest-2", true)?,
                ingest("ingest-3", false)?.with_clock(&clock)?,
            ],
            guest: ingest("ingest-guest", false)?,
            collectors: Vec::new(),
            spools: Vec::new(),
            clocks: vec![clock],
            gpus: Vec::new(),
            gpu_accounts: Vec::new(),
            miner_account,
            folder: folder.to_owned(),
            prefix: prefix.to_owned(),
            miners,
        };
        for node in 0..nodes {
            fleet.add_collector(node, &kafka.collectors, lossy)?;
        }
        Ok(fleet)
    }

    fn add_collector(&mut self, node: usize, bootstrap: &str, lossy: bool) -> Result<()> {
        let name = format!("node-{}", node + 1);
        let nvml = self.folder.join(format!("{name}-nvml"));
        std::fs::create_dir_all(&nvml)?;
        let library =
            racklake_nvml_sim::library_path().context("cargo builds the simulated NVML library beside this")?;
        let scenario = Scenario::parse(SCENARIO)?;
        let library = racklake_nvml_sim::install(&library, &nvml, "node", &scenario)?;
        let spool = Disk::mount(self.folder.join("disks").join(&name))?;
        let addresses = self.miners.addresses();
        let own = addresses.iter().skip(node * MINERS_PER_COLLECTOR).take(MINERS_PER_COLLECTOR);
        let miners: String = own
            .map(|at| format!("[[miner]]\naddress = \"{}\"\nport = {}\nmake = \"avalon\"\n", at.ip(), at.port()))
            .collect();
        let bound = if lossy { "bytes_max = 1048576\n" } else { "" };
        let http = format!("127.0.0.1:{}", free_port()?);
        let config = format!(
            "site = \"drill\"\nnode = {name:?}\nrack = \"r1\"\nstate_dir = {state:?}\n\
             [kafka]\nbootstrap_servers = {bootstrap:?}\ntopic_prefix = {prefix:?}\npartitions = {PARTITIONS}\n\
             [http]\nlisten = {http:?}\n[frames]\nage_max = \"500ms\"\n[spool]\nfsync_period = \"100ms\"\n{bound}\
             [kernel_log]\nenabled = false\n[hwmon]\nenabled = false\n[amd]\nenabled = false\n[nvml]\nlibrary = {library:?}\nperiod = \"250ms\"\nhard_deadline = \"2s\"\n[miners]\nperiod = \"1s\"\n{miners}",
            state = spool.path().display().to_string(),
            prefix = self.prefix,
            library = library.display().to_string(),
        );
        let mut service = Service::new(&name, "racklake-collector", &self.folder, &config, http)?;
        if node == 0 {
            let clock = self.folder.join(format!("{name}.clock"));
            service = service.with_clock(&clock)?;
            self.clocks.push(clock);
        }
        self.collectors.push(service);
        self.spools.push(spool);
        self.gpu_accounts.push(library.with_file_name("gpu.jsonl"));
        self.gpus.push((library, scenario));
        Ok(())
    }

    /// Stops the simulated miners.
    pub fn stop_miners(self) {
        self.miners.stop();
    }
}

/// An ingest process of the group. A `fixed` one takes its partitions again when it comes back in time.
fn ingest(folder: &Path, lake: &Path, prefix: &str, bootstrap: &str, name: &str, fixed: bool) -> Result<Service> {
    let properties =
        if fixed { format!("[kafka.properties]\n\"group.instance.id\" = {name:?}\n") } else { String::new() };
    let http = format!("127.0.0.1:{}", free_port()?);
    let config = format!(
        "[kafka]\nbootstrap_servers = {bootstrap:?}\ntopic_prefix = {prefix:?}\npartitions = {PARTITIONS}\n\
         group = {GROUP:?}\n{properties}[lake]\nlocation = {lake:?}\n[flush]\nage_max = \"200ms\"\n\
         [http]\nlisten = {http:?}\n",
        lake = lake.display().to_string(),
    );
    Service::new(name, "racklake-ingest", folder, &config, http)
}
