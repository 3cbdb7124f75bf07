//! A real Apache Kafka from its Maven artifacts: one KRaft node on loopback, started, killed and restarted at will.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};

use crate::fault_proxy::FaultProxy;
use crate::process::Process;
use crate::{cache, repository, wait_for};

/// Version of the jars, as in `tests/kafka/pom.xml`.
const VERSION: &str = "4.4.0";

/// A broker and its directory.
pub struct Broker {
    folder: PathBuf,
    bootstrap: String,
    process: Mutex<Option<Process>>,
}

/// A further port of a broker, and the port that it tells those who bootstrap there.
struct Listener {
    name: &'static str,
    port: u16,
    advertised: u16,
}

/// The broker that the tests of this binary share; each uses topics of its own.
///
/// # Errors
/// When Kafka cannot be obtained or started; the text says what to install.
pub fn shared() -> Result<Arc<Broker>> {
    static SHARED: OnceLock<Result<Arc<Broker>, String>> = OnceLock::new();
    let broker = SHARED.get_or_init(|| {
        // Leaked on purpose: a static has no end, and the next start of the tests sweeps what lies here.
        let folder = cache().join(format!("broker-{}", std::process::id()));
        sweep();
        Broker::start(&folder).map(Arc::new).map_err(|error| format!("{error:#}"))
    });
    broker.clone().map_err(anyhow::Error::msg)
}

/// Removes the directories of brokers whose test process is gone.
fn sweep() {
    for entry in std::fs::read_dir(cache()).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if let Some(pid) = name.strip_prefix("broker-")
            && !Path::new("/proc").join(pid).exists()
        {
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
}

impl Broker {
    /// Formats `folder` and starts a broker in it.
    ///
    /// # Errors
    /// When Java or Maven is missing or the broker does not come up.
    pub fn start(folder: &Path) -> Result<Broker> {
        Broker::start_with(folder, &[])
    }

    /// The same with two proxies in front of it, for the collectors and for ingest: whoever bootstraps at a proxy's address
    /// is told that address for the broker too, and never gets past the proxy. They stay in front of it when it is killed
    /// and restarted.
    ///
    /// # Errors
    /// As [`Broker::start`], and when a proxy cannot start.
    pub fn start_with_proxies(folder: &Path) -> Result<(Broker, FaultProxy, FaultProxy)> {
        let proxied = |name| -> Result<(Listener, FaultProxy)> {
            let port = free_port()?;
            let proxy = FaultProxy::start(SocketAddr::from((Ipv4Addr::LOCALHOST, port)))?;
            Ok((Listener { name, port, advertised: proxy.address().port() }, proxy))
        };
        let (collector, collector_proxy) = proxied("COLLECTOR")?;
        let (ingest, ingest_proxy) = proxied("INGEST")?;
        let broker = Broker::start_with(folder, &[collector, ingest])?;
        Ok((broker, collector_proxy, ingest_proxy))
    }

    fn start_with(folder: &Path, more: &[Listener]) -> Result<Broker> {
        let libs = jars()?;
        std::fs::create_dir_all(folder)?;
        let (broker_port, controller_port) = (free_port()?, free_port()?);
        let properties = folder.join("server.properties");
        std::fs::write(&properties, server_properties(folder, broker_port, controller_port, more))?;
        let id = run_java(&libs, &["kafka.tools.StorageTool", "random-uuid"])?;
        let properties_text = properties.display().to_string();
        run_java(
            &libs,
            &["kafka.tools.StorageTool", "format", "-t", id.trim(), "-c", &properties_text, "--standalone"],
        )?;
        let broker = Broker {
            folder: folder.to_owned(),
            bootstrap: format!("127.0.0.1:{broker_port}"),
            process: Mutex::new(None),
        };
        broker.restart()?;
        Ok(broker)
    }

    /// Address for `bootstrap.servers`.
    pub fn bootstrap(&self) -> &str {
        &self.bootstrap
    }

    /// SIGKILL to the JVM.
    ///
    /// # Errors
    /// When it does not run.
    pub fn kill(&self) -> Result<()> {
        self.running().take().context("the broker does not run")?.kill()
    }

    /// Starts the JVM on the directory as it is and waits until it answers.
    ///
    /// # Errors
    /// When it does not answer within a minute.
    pub fn restart(&self) -> Result<()> {
        let libs = jars()?;
        let class_path = format!("{}/*", libs.display());
        let properties = self.folder.join("server.properties").display().to_string();
        let arguments = [
            "-Xmx512m",
            "-XX:TieredStopAtLevel=1",
            "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
            "-cp",
            &class_path,
            "kafka.Kafka",
            &properties,
        ];
        let process = Process::start("kafka", Path::new("java"), &arguments, &self.folder)
            .context("Java is missing; install a JDK 17, on Debian: apt-get install openjdk-17-jdk-headless")?;
        let mut running = self.running();
        *running = Some(process);
        let client: BaseConsumer = self.client_config().create()?;
        let answered = wait_for("the Kafka broker to answer", 60, || {
            client.fetch_metadata(None, Duration::from_secs(1)).ok().filter(|metadata| !metadata.brokers().is_empty())
        });
        if answered.is_err() {
            anyhow::bail!(
                "the Kafka broker does not answer\n{}",
                running.as_ref().map(Process::tail).unwrap_or_default()
            );
        }
        Ok(())
    }

    fn running(&self) -> MutexGuard<'_, Option<Process>> {
        self.process.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A client configuration for this broker.
    pub fn client_config(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &self.bootstrap);
        config
    }

    /// Creates a topic as an operator would, and waits until it can be written.
    ///
    /// # Errors
    /// When the broker refuses.
    pub fn create_topic(&self, topic: &str, partitions: i32) -> Result<()> {
        let admin: AdminClient<DefaultClientContext> = self.client_config().create()?;
        let new = NewTopic::new(topic, partitions, TopicReplication::Fixed(1))
            .set("message.timestamp.type", "LogAppendTime")
            .set("max.message.bytes", "8388608");
        let creating = async { admin.create_topics([&new], &AdminOptions::new()).await };
        for result in runtime()?.block_on(creating)? {
            result.map_err(|(name, code)| anyhow::anyhow!("creating {name}: {code}"))?;
        }
        wait_for("the new topic", 30, || {
            self.end_offsets(topic).ok().filter(|ends| ends.len() == partitions as usize)
        })?;
        Ok(())
    }

    /// Deletes a topic and waits until it is gone.
    ///
    /// # Errors
    /// When the broker refuses.
    pub fn delete_topic(&self, topic: &str) -> Result<()> {
        let admin: AdminClient<DefaultClientContext> = self.client_config().create()?;
        let deleting = async { admin.delete_topics(&[topic], &AdminOptions::new()).await };
        let results = runtime()?.block_on(deleting)?;
        for result in results {
            result.map_err(|(name, code)| anyhow::anyhow!("deleting {name}: {code}"))?;
        }
        let client: BaseConsumer = self.client_config().create()?;
        wait_for("the topic to be gone", 30, || {
            let metadata = client.fetch_metadata(None, Duration::from_secs(1)).ok()?;
            metadata.topics().iter().all(|t| t.name() != topic).then_some(())
        })
    }

    /// The newest offset of each partition of a topic.
    ///
    /// # Errors
    /// When the broker does not answer.
    pub fn end_offsets(&self, topic: &str) -> Result<Vec<i64>> {
        let client: BaseConsumer = self.client_config().create()?;
        let metadata = client.fetch_metadata(Some(topic), Duration::from_secs(10))?;
        let partitions = metadata.topics().first().map_or(0, |t| t.partitions().len());
        let offset = |partition| Ok(client.fetch_watermarks(topic, partition, Duration::from_secs(10))?.1);
        (0..partitions as i32).map(offset).collect()
    }
}

/// A runtime to wait for one answer with.
///
/// # Errors
/// When the system refuses a thread.
pub fn runtime() -> Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_current_thread().enable_all().build()?)
}

/// The folder of Kafka's jars, which Maven fills once.
fn jars() -> Result<PathBuf> {
    let folder = cache().join(format!("kafka-{VERSION}"));
    if folder.join(format!("kafka_2.13-{VERSION}.jar")).exists() {
        return Ok(folder);
    }
    let partial = cache().join(format!("kafka-{VERSION}.partial"));
    let pom = repository().join("tests/kafka/pom.xml");
    let status = Command::new("mvn")
        .args(["-B", "-q", "-f"])
        .arg(&pom)
        .args(["dependency:copy-dependencies", "-DincludeScope=runtime"])
        .arg(format!("-DoutputDirectory={}", partial.display()))
        .status()
        .context("Maven is missing; install it, on Debian: apt-get install maven")?;
    ensure!(status.success(), "mvn -f {} could not obtain Kafka's jars", pom.display());
    if !folder.exists() {
        std::fs::rename(&partial, &folder)?;
    }
    Ok(folder)
}

fn run_java(libs: &Path, arguments: &[&str]) -> Result<String> {
    let output = Command::new("java")
        .args(["-XX:TieredStopAtLevel=1", "-cp", &format!("{}/*", libs.display())])
        .args(arguments)
        .output()
        .context("Java is missing; install a JDK 17, on Debian: apt-get install openjdk-17-jdk-headless")?;
    let error = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "java {}: {error}", arguments.join(" "));
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// A port that was free a moment ago.
///
/// # Errors
/// When the system has none.
pub fn free_port() -> Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

fn server_properties(folder: &Path, broker: u16, controller: u16, more: &[Listener]) -> String {
    let log = folder.join("log").display().to_string();
    let (mut listeners, mut advertised, mut protocols) = (String::new(), String::new(), String::new());
    for Listener { name, port, advertised: told } in more {
        listeners += &format!(",{name}://127.0.0.1:{port}");
        advertised += &format!(",{name}://127.0.0.1:{told}");
        protocols += &format!(",{name}:PLAINTEXT");
    }
    // The two timeouts let a broker that was killed answer again after 3 s instead of 12.
    format!(
        "process.roles=broker,controller\nnode.id=1\ncontroller.quorum.bootstrap.servers=127.0.0.1:{controller}\n\
         listeners=PLAINTEXT://127.0.0.1:{broker},CONTROLLER://127.0.0.1:{controller}{listeners}\n\
         advertised.listeners=PLAINTEXT://127.0.0.1:{broker}{advertised}\ncontroller.listener.names=CONTROLLER\n\
         inter.broker.listener.name=PLAINTEXT\n\
         listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT{protocols}\nlog.dirs={log}\n\
         offsets.topic.replication.factor=1\noffsets.topic.num.partitions=4\n\
         transaction.state.log.replication.factor=1\n\
         transaction.state.log.min.isr=1\nshare.coordinator.state.topic.replication.factor=1\n\
         share.coordinator.state.topic.min.isr=1\ngroup.initial.rebalance.delay.ms=0\n\
         auto.create.topics.enable=false\nbroker.session.timeout.ms=1500\nbroker.heartbeat.interval.ms=250\n"
    )
}
