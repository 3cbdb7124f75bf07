//! Finds the lake and its tables: a directory of a disk, or a prefix of an S3, GCS or Azure bucket.
//!
//! Opening the lake reads and writes nothing; opening a table does. A store takes its credentials from its usual environment
//! variables and from the options, which win.

use std::collections::BTreeMap;
use std::fs::File;
use std::sync::Arc;

use object_store::aws::AmazonS3Builder;
use object_store::azure::MicrosoftAzureBuilder;
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt as _};
use racklake_schemas::Table;
use tokio::runtime::{Handle, RuntimeFlavor};
use url::Url;

use crate::delta::Engine;
use crate::error::StorageError;
use crate::table::LakeTable;

const SCHEMES: &str = "a path, file://, s3://, gs://, az:// or abfss://";
const CHECK_LOCATION: &str = "check the lake's location and options";

/// The lake. Clones share it.
#[derive(Clone)]
pub struct Lake {
    inner: Arc<Inner>,
}

struct Inner {
    location: String,
    root: Url,
    store: Arc<dyn ObjectStore>,
    engine: Engine,
    runtime: Handle,
}

impl Lake {
    /// Opens the lake at a local path or a URL. `options` are object_store's keys for that kind of store. Call it inside
    /// a multi-thread tokio runtime; the lake works on that runtime from then on.
    ///
    /// # Errors
    /// Stop, when the location or an option is wrong.
    pub fn open(location: &str, options: &BTreeMap<String, String>) -> Result<Lake, StorageError> {
        let root = root_of(location)?;
        let runtime = Handle::try_current()
            .ok()
            .filter(|handle| handle.runtime_flavor() == RuntimeFlavor::MultiThread)
            .ok_or_else(|| {
                StorageError::stop(location, "there is no multi-thread tokio runtime", "open the lake inside one")
            })?;
        let store = store_of(location, &root, options)?;
        let engine = Engine::new(Arc::clone(&store), runtime.clone());
        Ok(Lake { inner: Arc::new(Inner { location: location.to_owned(), root, store, engine, runtime }) })
    }

    /// Opens the Delta table of a table of the catalog, and creates it where it is missing. Columns that the catalog has
    /// gained since are added.
    ///
    /// # Errors
    /// Retry and NoRoom as the store says; Stop, when the table there is not one that racklake may write.
    pub fn table(&self, table: &'static Table) -> Result<LakeTable, StorageError> {
        LakeTable::open(self.clone(), table)
    }

    /// Writes the `field_dictionary` table, which describes every column, when it differs from the catalog. Says whether
    /// it did.
    ///
    /// # Errors
    /// As [`Lake::table`].
    pub fn write_dictionary(&self) -> Result<bool, StorageError> {
        crate::dictionary::write(self)
    }

    /// Where the lake is, as it was given.
    pub fn location(&self) -> &str {
        &self.inner.location
    }

    pub(crate) fn engine(&self) -> &Engine {
        &self.inner.engine
    }

    /// Root of a table, with a slash at its end. On a local disk the directory is made: the kernel opens no other.
    pub(crate) fn table_root(&self, name: &str) -> Result<Url, StorageError> {
        let root = self.table_url(name)?;
        if let (true, Ok(directory)) = (root.scheme() == "file", root.to_file_path()) {
            make_directory(&directory).map_err(|error| StorageError::of_store(&self.place(name), &error))?;
        }
        Ok(root)
    }

    /// URL of a table, with a slash at its end. Nothing is made.
    pub(crate) fn table_url(&self, name: &str) -> Result<Url, StorageError> {
        let joined = self.inner.root.join(&format!("{name}/"));
        joined.map_err(|error| StorageError::stop(self.location(), error, CHECK_LOCATION))
    }

    pub(crate) fn store(&self) -> &Arc<dyn ObjectStore> {
        &self.inner.store
    }

    /// How messages name something below the lake.
    pub(crate) fn place(&self, name: &str) -> String {
        format!("{}/{name}", self.location().trim_end_matches('/'))
    }

    /// Puts a file into the lake. When it returns, the file is durable: on a local disk the file, its directory entry and
    /// the directories that were made for it have been synced (a directory that another thread is just making is
    /// synced by that thread).
    pub(crate) async fn put(&self, url: &Url, bytes: Vec<u8>) -> Result<(), StorageError> {
        let place = without_credentials(url);
        let path = Path::from_url_path(url.path()).map_err(|e| StorageError::of_store(&place, &e))?;
        self.inner.store.put(&path, bytes.into()).await.map_err(|e| StorageError::of_store(&place, &e))?;
        Ok(())
    }

    /// Waits for a future on the lake's runtime. Also on one of its worker threads, which hands its tasks over first.
    pub(crate) fn wait<F: Future>(&self, future: F) -> F::Output {
        match Handle::try_current() {
            Ok(_) => tokio::task::block_in_place(|| self.inner.runtime.block_on(future)),
            Err(_) => self.inner.runtime.block_on(future),
        }
    }
}

impl std::fmt::Debug for Lake {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Lake({})", self.location())
    }
}

/// The location as a URL with a slash at its end.
fn root_of(location: &str) -> Result<Url, StorageError> {
    if location.is_empty() {
        return Err(StorageError::stop("lake", "the location is empty", &format!("give {SCHEMES}")));
    }
    if !location.contains("://") {
        let path = std::path::absolute(location).map_err(|e| StorageError::of_store(location, &e))?;
        let url = Url::from_directory_path(&path);
        return url.map_err(|()| StorageError::stop(location, "the path is no place for a lake", CHECK_LOCATION));
    }
    let mut url =
        Url::parse(location).map_err(|e| StorageError::stop("lake location", e, &format!("give {SCHEMES}")))?;
    if url.password().is_some() || url.query().is_some() {
        let cause = "it carries a password or a query, which would be shown in messages";
        return Err(StorageError::stop(&without_credentials(&url), cause, "put credentials into the lake's options"));
    }
    if !url.path().ends_with('/') {
        let path = format!("{}/", url.path());
        url.set_path(&path);
    }
    Ok(url)
}

/// Where the store has what a URL names: decoded once.
pub(crate) fn store_path(lake: &Lake, url: &Url) -> Result<Path, StorageError> {
    Path::from_url_path(url.path()).map_err(|error| StorageError::of_store(lake.location(), &error))
}

/// Makes a directory and those above it that are missing, and syncs every directory that has a new entry.
fn make_directory(directory: &std::path::Path) -> std::io::Result<()> {
    let missing = directory.ancestors().take_while(|ancestor| !ancestor.exists()).count();
    std::fs::create_dir_all(directory)?;
    let mut changed = directory.ancestors().skip(1).take(missing);
    changed.try_for_each(|ancestor| File::open(ancestor)?.sync_all())
}

fn without_credentials(url: &Url) -> String {
    let mut url = url.clone();
    url.set_query(None);
    if url.password().is_some() && url.set_password(None).is_err() {
        return format!("{}://", url.scheme());
    }
    url.to_string()
}

/// Builds a cloud store from its environment variables, the URL and the options; an unknown option is an error, because
/// a typo would otherwise change nothing and say nothing.
macro_rules! cloud {
    ($builder:ty, $location:expr, $url:expr, $options:expr) => {{
        let mut builder = <$builder>::from_env().with_url($url.as_str());
        for (key, value) in $options {
            let known = key.to_ascii_lowercase().parse();
            let known = known.map_err(|_| unknown_option($location, key, "take a key of this store"))?;
            builder = builder.with_config(known, value);
        }
        let store = builder.build().map_err(|error| StorageError::stop($location, error, CHECK_LOCATION))?;
        Ok(Arc::new(store))
    }};
}

fn store_of(
    location: &str,
    root: &Url,
    options: &BTreeMap<String, String>,
) -> Result<Arc<dyn ObjectStore>, StorageError> {
    match root.scheme() {
        "file" => match options.keys().next() {
            Some(key) => Err(unknown_option(location, key, "a local lake has no options")),
            // URLs are absolute, so the store has no prefix. Without fsync a commit could outlive its files.
            None => Ok(Arc::new(LocalFileSystem::new().with_fsync(true))),
        },
        "s3" | "s3a" => cloud!(AmazonS3Builder, location, root, options),
        "gs" => cloud!(GoogleCloudStorageBuilder, location, root, options),
        "az" | "abfs" | "abfss" => cloud!(MicrosoftAzureBuilder, location, root, options),
        scheme => {
            Err(StorageError::stop(location, format!("{scheme}:// is not supported"), &format!("give {SCHEMES}")))
        }
    }
}

fn unknown_option(location: &str, key: &str, remedy: &str) -> StorageError {
    StorageError::stop(location, format!("unknown option {key}"), remedy)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_location_with_a_password_is_refused_and_not_shown() {
        let error = root_of("s3://key:hunter2@bucket/lake").unwrap_err().to_string();
        assert!(!error.contains("hunter2") && error.contains("bucket/lake"), "{error}");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn an_option_that_the_store_does_not_know_is_refused() {
        let options = BTreeMap::from([("regoin".to_owned(), "eu-west-1".to_owned())]);
        let error = Lake::open("s3://bucket/lake", &options).unwrap_err().to_string();
        assert!(error.contains("unknown option regoin"), "{error}");
        let known = BTreeMap::from([("region".to_owned(), "eu-west-1".to_owned())]);
        assert_eq!(Lake::open("s3://bucket/lake", &known).unwrap().location(), "s3://bucket/lake");
    }
}
