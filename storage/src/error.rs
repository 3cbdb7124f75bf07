//! What can go wrong with a lake, named by what the caller does about it.

use std::error::Error as StdError;

/// An error of the lake. The text names the place, the cause and the remedy.
#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    /// The store does not answer, or answered in doubt: do the same again after a while.
    #[error("{place}: {cause}; it is tried again")]
    Retry {
        /// Table or path.
        place: String,
        /// The cause, with what lies beneath it.
        cause: String,
    },
    /// The disk is full or cannot be written: stop fetching and try again when there is room.
    #[error("{place}: no room: {cause}; free space or make it writable, then it goes on by itself")]
    NoRoom {
        /// Table or path.
        place: String,
        /// The cause, with what lies beneath it.
        cause: String,
    },
    /// An operator must act: a wrong location, a table that is damaged or not ours.
    #[error("{place}: {cause}")]
    Stop {
        /// Table or path.
        place: String,
        /// The cause and the remedy.
        cause: String,
    },
}

impl StorageError {
    pub(crate) fn stop(place: impl Into<String>, cause: impl Into<String>) -> StorageError {
        StorageError::Stop { place: place.into(), cause: cause.into() }
    }

    /// An error of the store or of the system beneath: no room, or worth another try.
    pub(crate) fn of_store(place: &str, error: &(dyn StdError + 'static)) -> StorageError {
        let (place, cause) = (place.to_owned(), chain(error));
        if is_no_room(error) { StorageError::NoRoom { place, cause } } else { StorageError::Retry { place, cause } }
    }
}

/// The messages of an error and of those beneath it, each once.
fn chain(error: &(dyn StdError + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let message = cause.to_string();
        if !text.contains(&message) {
            text = format!("{text}: {message}");
        }
        next = cause.source();
    }
    text
}

/// Whether the system said that there is no space, no quota, or no permission to write.
fn is_no_room(error: &(dyn StdError + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(cause) = next {
        if let Some(io) = cause.downcast_ref::<std::io::Error>() {
            use std::io::ErrorKind::{QuotaExceeded, ReadOnlyFilesystem, StorageFull};
            if matches!(io.kind(), StorageFull | ReadOnlyFilesystem | QuotaExceeded) {
                return true;
            }
        }
        next = cause.source();
    }
    // Some layers keep only the words of the system.
    let words = chain(error);
    ["No space left on device", "Read-only file system", "Disk quota exceeded"].iter().any(|w| words.contains(w))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_recognised_beneath_other_errors() {
        let full = std::io::Error::from_raw_os_error(28);
        let beneath = object_store::Error::Generic { store: "LocalFileSystem", source: Box::new(full) };
        assert!(matches!(StorageError::of_store("t", &beneath), StorageError::NoRoom { .. }));
        let away = std::io::Error::from_raw_os_error(110);
        assert!(matches!(StorageError::of_store("t", &away), StorageError::Retry { .. }));
    }
}
