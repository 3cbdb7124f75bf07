//! Where the lake is: a local directory or an object store, and the tables in it.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use object_store::ObjectStore;
use object_store::local::LocalFileSystem;
use racklake_schemas::Table;
use url::Url;

use crate::dictionary;
use crate::error::StorageError;
use crate::table::{Door, LakeTable};

/// An open lake. Cheap to clone.
#[derive(Clone)]
pub struct Lake {
    door: Arc<Door>,
    root: Url,
    location: String,
}

impl Lake {
    /// Opens a lake without touching it. `location` is a directory or a URL (`s3://`, `gs://`, `az://`, `file://`);
    /// `options` are keys of `object_store`, which come before those of the environment. Must be called within a
    /// multi-thread tokio runtime, whose threads do the waiting.
    ///
    /// # Errors
    /// `Stop` when the location is none, or an option is not known.
    pub fn open(location: &str, options: &BTreeMap<String, String>) -> Result<Lake, StorageError> {
        let runtime = tokio::runtime::Handle::try_current()
            .map_err(|error| StorageError::stop(location, format!("the lake must be opened within tokio: {error}")))?;
        let root = root_url(location)?;
        let store = store_for(&root, location, options)?;
        Ok(Lake { door: Arc::new(Door::new(store, runtime)), root, location: location.to_owned() })
    }

    /// Where it is, as it was given.
    pub fn location(&self) -> &str {
        &self.location
    }

    /// Opens the Delta table of a table of the catalog, creating it where it is missing.
    ///
    /// # Errors
    /// Any [`StorageError`]; `Stop` where the table is not one that racklake wrote.
    pub fn table(&self, table: &'static Table) -> Result<LakeTable, StorageError> {
        LakeTable::open(&self.door, self.table_root(table.name)?, table)
    }

    /// Writes the `field_dictionary` table where it does not say what the catalog says; true when it was written.
    ///
    /// # Errors
    /// Any [`StorageError`].
    pub fn write_dictionary(&self) -> Result<bool, StorageError> {
        dictionary::write(&self.door, self.table_root(dictionary::NAME)?)
    }

    fn table_root(&self, name: &str) -> Result<Url, StorageError> {
        self.root.join(&format!("{name}/")).map_err(|error| StorageError::stop(&self.location, error.to_string()))
    }
}

/// The location as a URL that ends in a slash, so that names can be joined to it.
fn root_url(location: &str) -> Result<Url, StorageError> {
    let is_url = location.contains("://");
    let mut url = if is_url {
        Url::parse(location).map_err(|error| StorageError::stop(location, format!("no URL of a lake: {error}")))?
    } else {
        let path = std::path::absolute(Path::new(location))
            .map_err(|error| StorageError::stop(location, format!("no path of a lake: {error}")))?;
        Url::from_directory_path(&path).map_err(|()| StorageError::stop(location, "no path of a lake"))?
    };
    if !url.path().ends_with('/') {
        url.set_path(&format!("{}/", url.path()));
    }
    Ok(url)
}

fn store_for(
    root: &Url,
    location: &str,
    options: &BTreeMap<String, String>,
) -> Result<Arc<dyn ObjectStore>, StorageError> {
    if root.scheme() == "file" {
        // Without fsync a power loss could leave a commit that names a file of zeros.
        return Ok(Arc::new(LocalFileSystem::new().with_fsync(true)));
    }
    let known = |name: &String| ["AWS_", "AZURE_", "GOOGLE_"].iter().any(|prefix| name.starts_with(prefix));
    let environment = std::env::vars().filter(|(name, _)| known(name)).map(|(name, v)| (name.to_lowercase(), v));
    let all = environment.chain(options.clone());
    let (store, _) = object_store::parse_url_opts(root, all).map_err(|error| {
        StorageError::stop(location, format!("{error}; a lake is a directory or s3://, gs://, az:// with its options"))
    })?;
    Ok(Arc::from(store))
}
