//! A child process whose log can be watched and that never outlives the tests.
//!
//! Children are started through `setpriv --pdeathsig KILL` from one thread that lives as long as the process: the
//! kernel ends them when it ends, however that happens.

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

/// A running child.
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
    lines: Arc<Mutex<Vec<String>>>,
}

type Order = (Command, Sender<std::io::Result<Child>>);

/// Spawns on the thread that never ends, since the death signal follows the thread, not the process.
fn spawn(command: Command) -> Result<Child> {
    static SPAWNER: OnceLock<Mutex<Sender<Order>>> = OnceLock::new();
    let spawner = SPAWNER.get_or_init(|| {
        let (orders, inbox): (Sender<Order>, Receiver<Order>) = channel();
        std::thread::spawn(move || {
            for (mut command, reply) in inbox {
                let _ = reply.send(command.spawn());
            }
        });
        Mutex::new(orders)
    });
    let (reply, answer) = channel();
    spawner.lock().unwrap_or_else(PoisonError::into_inner).send((command, reply)).context("the spawner is gone")?;
    Ok(answer.recv().context("the spawner is gone")??)
}

impl Process {
    /// Starts `program` with `arguments`; its output is appended to `<folder>/<name>.log`.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(name: &str, program: &Path, arguments: &[&str], folder: &Path) -> Result<Process> {
        Process::start_in(name, program, arguments, folder, &[])
    }

    /// The same with further environment variables.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start_in(
        name: &str,
        program: &Path,
        arguments: &[&str],
        folder: &Path,
        environment: &[(&str, &str)],
    ) -> Result<Process> {
        let log = folder.join(format!("{name}.log"));
        let file = OpenOptions::new().create(true).append(true).open(&log)?;
        let mut command = Command::new("setpriv");
        command
            .args(["--pdeathsig", "KILL", "--"])
            .arg(program)
            .args(arguments)
            .envs(environment.iter().copied())
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(Stdio::piped());
        let mut child = spawn(command).with_context(|| format!("starting {name} ({})", program.display()))?;
        let lines = Arc::new(Mutex::new(Vec::new()));
        if let Some(stderr) = child.stderr.take() {
            let lines = Arc::clone(&lines);
            std::thread::spawn(move || follow(BufReader::new(stderr), file, &lines));
        }
        Ok(Process { name: name.to_owned(), child, log, lines })
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The child of this process that was started with that argument.
    pub fn child(&self, argument: &str) -> Option<u32> {
        let parent = format!("PPid:\t{}", self.pid());
        let pids = std::fs::read_dir("/proc").ok()?.flatten();
        pids.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok()).find(|pid| {
            let read = |file: &str| std::fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap_or_default();
            read("status").lines().any(|line| line == parent)
                && read("cmdline").split('\0').any(|part| part == argument)
        })
    }

    /// SIGKILL to that child. Says whether it was there.
    ///
    /// # Errors
    /// When `kill` cannot be run.
    pub fn kill_child(&self, argument: &str) -> Result<bool> {
        let Some(pid) = self.child(argument) else { return Ok(false) };
        Ok(Command::new("kill").args(["-KILL", &pid.to_string()]).stderr(Stdio::null()).status()?.success())
    }

    /// How many lines it has written to standard error.
    pub fn line_count(&self) -> usize {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// The first line from number `from` on that satisfies `wanted`, with its number.
    pub fn find_line(&self, from: usize, wanted: impl Fn(&str) -> bool) -> Option<(usize, String)> {
        let lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        lines.iter().enumerate().skip(from).find(|(_, line)| wanted(line)).map(|(i, line)| (i, line.clone()))
    }

    /// Gives the lines from number `from` on to `each`, and how many there are in all.
    pub fn for_each_line(&self, from: usize, each: impl FnMut(&str)) -> usize {
        let lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        lines.iter().skip(from).map(String::as_str).for_each(each);
        lines.len()
    }

    /// The last line that satisfies `wanted`.
    pub fn last_line(&self, wanted: impl Fn(&str) -> bool) -> Option<String> {
        let lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        lines.iter().rev().find(|line| wanted(line)).cloned()
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// SIGKILL, and waits until it is gone.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn kill(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Sends a signal by name: TERM, HUP, STOP, CONT.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn signal(&self, name: &str) -> Result<()> {
        let status = Command::new("kill").arg(format!("-{name}")).arg(self.pid().to_string()).status()?;
        ensure!(status.success(), "{}: kill -{name} failed", self.name);
        Ok(())
    }

    /// SIGTERM, and waits for the end.
    ///
    /// # Errors
    /// When it is still there after `seconds`.
    pub fn terminate(&mut self, seconds: u64) -> Result<ExitStatus> {
        self.signal("TERM")?;
        self.wait(seconds)
    }

    /// Waits for the end.
    ///
    /// # Errors
    /// When it is still there after `seconds`.
    pub fn wait(&mut self, seconds: u64) -> Result<ExitStatus> {
        let start = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            let late = start.elapsed().as_secs() >= seconds;
            ensure!(!late, "{} still runs after {seconds} s, see {}", self.name, self.log.display());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// The end of its log, for the message of a failing test.
    pub fn tail(&self) -> String {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        format!("{}:\n{}", self.log.display(), lines[lines.len().saturating_sub(30)..].join("\n"))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn follow(stderr: impl BufRead, mut log: File, lines: &Mutex<Vec<String>>) {
    for line in stderr.lines().map_while(|line| line.ok()) {
        let _ = writeln!(log, "{line}");
        lines.lock().unwrap_or_else(PoisonError::into_inner).push(line);
    }
}

/// User and system time of a process, in seconds.
///
/// # Errors
/// When there is no such process.
pub fn cpu_seconds(pid: u32) -> Result<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The name in brackets may hold anything.
    let rest = stat.rsplit(')').next().context("no name")?;
    let fields: Vec<&str> = rest.split_whitespace().collect();
    let ticks = |place: usize| fields.get(place).context("a field is missing")?.parse::<f64>().context("no number");
    // utime and stime are fields 14 and 15, of which two stand before the bracket; a tick is 10 ms on Linux.
    Ok((ticks(11)? + ticks(12)?) / 100.0)
}

/// Memory of a process that is resident.
///
/// # Errors
/// When there is no such process.
pub fn resident_mebibytes(pid: u32) -> Result<f64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    Ok(line.trim().trim_end_matches(" kB").parse::<f64>()? / 1024.0)
}
