//! Errors of the lake, named by what the caller does next.
//!
//! The store says what went wrong in a chain of causes; this module walks the chain to tell a full disk from a store
//! that is away and from a wrong setting. It does not promise to know every store's words: what it does not know is
//! tried again.

use std::error::Error;
use std::io::ErrorKind;

/// Why the lake did not do what it was asked. Nothing was made visible, unless a later look at the positions says so.
#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    /// The store is away or slow, or others are quicker: try the same again.
    #[error("{place}: {cause}; the same can be tried again")]
    Retry {
        /// Which file, table or lake.
        place: String,
        /// What the store said.
        cause: String,
    },
    /// The disk is full, over quota or read-only: stop reading, and try again when there is room.
    #[error("{place}: {cause}; make room, or make it writable, and writing goes on")]
    NoRoom {
        /// Which file, table or lake.
        place: String,
        /// What the store said.
        cause: String,
    },
    /// An operator must act; trying again cannot help.
    #[error("{place}: {cause}; {remedy}")]
    Stop {
        /// Which file, table or lake.
        place: String,
        /// What is wrong.
        cause: String,
        /// What to do about it.
        remedy: String,
    },
}

impl StorageError {
    pub(crate) fn retry(place: &str, cause: impl ToString) -> StorageError {
        StorageError::Retry { place: place.to_owned(), cause: without_queries(&cause.to_string()) }
    }

    pub(crate) fn stop(place: &str, cause: impl ToString, remedy: &str) -> StorageError {
        let cause = without_queries(&cause.to_string());
        StorageError::Stop { place: place.to_owned(), cause, remedy: remedy.to_owned() }
    }

    /// Judges what a store said.
    pub(crate) fn of_store(place: &str, error: &(dyn Error + 'static)) -> StorageError {
        let mut link = Some(error);
        let mut judgement = None;
        while let (Some(error), None) = (link, &judgement) {
            judgement = judge(error);
            link = error.source();
        }
        match judgement {
            Some(Judgement::NoRoom) => {
                StorageError::NoRoom { place: place.to_owned(), cause: without_queries(&error.to_string()) }
            }
            Some(Judgement::Stop(remedy)) => StorageError::stop(place, error, remedy),
            None => StorageError::retry(place, error),
        }
    }
}

enum Judgement {
    NoRoom,
    Stop(&'static str),
}

fn judge(link: &(dyn Error + 'static)) -> Option<Judgement> {
    if let Some(error) = link.downcast_ref::<std::io::Error>() {
        return match error.kind() {
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::ReadOnlyFilesystem => {
                Some(Judgement::NoRoom)
            }
            ErrorKind::PermissionDenied | ErrorKind::NotADirectory | ErrorKind::IsADirectory => {
                Some(Judgement::Stop("check the owner and the permissions of the lake's directory"))
            }
            ErrorKind::InvalidFilename => {
                Some(Judgement::Stop("shorten the name of the site or of the lake's location"))
            }
            _ => None,
        };
    }
    use object_store::Error as Store;
    match link.downcast_ref::<Store>()? {
        Store::PermissionDenied { .. } | Store::Unauthenticated { .. } => {
            Some(Judgement::Stop("check the credentials of the store and what they permit"))
        }
        Store::NotFound { .. } => Some(Judgement::Stop("check that the bucket and the files of the lake exist")),
        Store::NotSupported { .. } | Store::NotImplemented { .. } => {
            Some(Judgement::Stop("take a store that can create an object only if it is absent"))
        }
        Store::InvalidPath { .. } | Store::UnknownConfigurationKey { .. } => {
            Some(Judgement::Stop("check the lake's location and options"))
        }
        _ => None,
    }
}

/// The text without the query part of the URLs in it: that is where signatures and tokens travel.
fn without_queries(text: &str) -> String {
    let mut kept = String::with_capacity(text.len());
    for word in text.split_inclusive(char::is_whitespace) {
        match word.split_once('?') {
            Some((url, query)) if url.contains("://") => {
                kept.push_str(url);
                kept.extend(query.chars().filter(|c| c.is_whitespace()));
            }
            _ => kept.push_str(word),
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store_error(code: i32) -> object_store::Error {
        let source = Box::new(std::io::Error::from_raw_os_error(code));
        object_store::Error::Generic { store: "LocalFileSystem", source }
    }

    #[test]
    fn a_full_a_limited_and_a_read_only_disk_need_room() {
        for code in [28, 122, 30] {
            let error = StorageError::of_store("/lake", &store_error(code));
            assert!(matches!(error, StorageError::NoRoom { .. }), "os error {code}: {error:?}");
        }
    }

    #[test]
    fn a_timeout_is_tried_again_and_a_refusal_is_not() {
        let late = StorageError::of_store("/lake", &store_error(110));
        assert!(matches!(late, StorageError::Retry { .. }), "{late:?}");
        let refused = StorageError::of_store("/lake", &store_error(13));
        assert!(matches!(refused, StorageError::Stop { .. }), "{refused:?}");
    }

    #[test]
    fn a_signature_in_a_url_is_not_told() {
        let said = "Error performing PUT https://a.blob.core.windows.net/lake/x?sv=1&sig=secret in 3 s";
        let shown = StorageError::retry("az://lake", said).to_string();
        assert!(!shown.contains("secret") && shown.contains("/lake/x in 3 s"), "{shown}");
    }
}
