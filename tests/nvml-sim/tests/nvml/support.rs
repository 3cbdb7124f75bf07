//! A copy of the simulated library in a folder of its own, and the collector's source that reads it.

use std::path::PathBuf;
use std::time::Duration;

use racklake_collector::config::NvmlConfig;
use racklake_collector::nvml::NvmlSource;
use racklake_collector::source::{EventDraft, Found, Reading, Source};
use racklake_nvml_sim::{Answer, Scenario, install, library_path, read_account};
use racklake_schemas::tables::GPU_SAMPLE;
use racklake_schemas::{Cell, Row};
use tempfile::TempDir;
use tokio::sync::mpsc;

/// How long something that must happen may take.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

pub(crate) struct Node {
    pub(crate) folder: TempDir,
    pub(crate) library: PathBuf,
    pub(crate) scenario: Scenario,
}

impl Node {
    /// A library whose scenario is that text, with an account.
    pub(crate) fn new(text: &str) -> Node {
        let folder = tempfile::tempdir().unwrap();
        let mut scenario = Scenario::parse(text).unwrap();
        scenario.account.get_or_insert("account.jsonl".to_owned());
        let built = library_path().expect("cargo builds the library for its own tests");
        let library = install(&built, folder.path(), "node", &scenario).unwrap();
        Node { folder, library, scenario }
    }

    /// Changes the scenario and waits until the library must have seen it.
    pub(crate) fn change(&mut self, change: impl FnOnce(&mut Scenario)) {
        change(&mut self.scenario);
        self.scenario.apply_to(&self.library).unwrap();
        std::thread::sleep(Duration::from_millis(40));
    }

    pub(crate) fn source(&self) -> (NvmlSource, mpsc::Receiver<EventDraft>) {
        source(&self.library.display().to_string())
    }

    pub(crate) fn account(&self) -> Vec<Answer> {
        read_account(&self.folder.path().join("account.jsonl")).unwrap()
    }
}

/// A source on the library of that path, and the events that it sends.
pub(crate) fn source(library: &str) -> (NvmlSource, mpsc::Receiver<EventDraft>) {
    let (sink, events) = mpsc::channel(16);
    (NvmlSource::new(&NvmlConfig { library: library.to_owned(), ..NvmlConfig::default() }, sink), events)
}

/// A source that has found its GPUs.
pub(crate) async fn discovered(node: &Node) -> (NvmlSource, mpsc::Receiver<EventDraft>, Vec<Found>) {
    let (source, events) = node.source();
    let found = source.discover().await.unwrap();
    (source, events, found)
}

/// One row of a GPU, which must come in time.
pub(crate) async fn row(source: &NvmlSource, found: &Found) -> Row {
    let reading: Reading =
        tokio::time::timeout(PATIENCE, source.read(&found.address, &GPU_SAMPLE)).await.expect("the GPU answers");
    reading.rows.into_iter().next().unwrap()
}

pub(crate) fn device_id(found: &Found) -> String {
    found.identity.as_ref().and_then(|identity| identity.device_id.clone()).expect("the GPU tells its UUID")
}

pub(crate) fn column(name: &str) -> usize {
    GPU_SAMPLE.columns.iter().position(|column| column.name == name).unwrap()
}

pub(crate) fn value(row: &Row, name: &str) -> Option<i64> {
    match row.cell(column(name)) {
        Cell::I64(value) => Some(*value),
        Cell::Null => None,
        other => panic!("{name} is {other:?}"),
    }
}

/// Names of the columns whose bits are set.
pub(crate) fn marked(mask: i64) -> Vec<&'static str> {
    let is_set = |bit: u8| mask & (1 << bit) != 0;
    // Columns of another make are always unsupported.
    let own = GPU_SAMPLE.columns.iter().filter(|column| !column.source.starts_with("amdgpu"));
    own.filter(|column| column.bit.is_some_and(is_set)).map(|column| column.name).collect()
}
