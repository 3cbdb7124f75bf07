//! Lets files go and others come in one commit, however many others commit meanwhile, as long as those that go are live.
//!
//! The files are looked up once, in the whole version. Of each version after it only its own commit is read: unless that
//! removes one of them they are still live. So a try takes hardly longer than a flush's, and a writer that never rests
//! cannot keep it out.

use std::collections::BTreeSet;

use object_store::path::Path;

use crate::delta::{Attempt, Change, Found};
use crate::error::StorageError;
use crate::log::Changes;
use crate::table::{LakeTable, Tries};

/// How an exchange ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exchanged {
    /// It is in the table.
    Committed,
    /// A file that was to go is not live any more, or the domain has another text. Nothing was committed, as far as the log
    /// tells.
    Stale {
        /// Whether there was a try at all.
        was_tried: bool,
    },
}

/// What has become of it since it was last looked.
enum Standing {
    Committed,
    Stale,
    Open,
}

impl LakeTable {
    /// Commits the change, which was made for the version that the table is at. `ours` is a file that it adds: if the table
    /// has it, the change is committed. `is_wanted` is asked before each try.
    pub(crate) fn exchange(
        &mut self,
        change: &Change<'_>,
        ours: Option<&Path>,
        is_wanted: &dyn Fn() -> bool,
    ) -> Result<Exchanged, StorageError> {
        let mut tries = Tries::default();
        let Some(mut found) = self.delta.find(change.gone)? else {
            return Ok(Exchanged::Stale { was_tried: false });
        };
        let gone: BTreeSet<Path> = change.gone.iter().map(|path| self.path_of(path)).collect::<Result<_, _>>()?;
        loop {
            tries.may_go_on(&self.place)?;
            if !is_wanted() {
                return Ok(Exchanged::Stale { was_tried: tries.were_made() });
            }
            match self.delta.exchange(&found, change) {
                Ok(Attempt::Committed) => {
                    self.forget_known();
                    self.delta.checkpoint_if_due();
                    return Ok(Exchanged::Committed);
                }
                Ok(Attempt::Conflicted) => tries.conflicts += 1,
                Err(error) => tries.failures.push(error),
            }
            // In a block, because only in it a thread that is not the runtime's own may sleep.
            self.lake.wait(async { tokio::time::sleep(tries.pause()).await });
            self.refresh()?;
            // A try may have gone through whatever its answer was: also a conflict may be one with ourselves, when the store
            // took the commit, its answer was lost, and it was sent again.
            match self.standing_of(&mut found, change, &gone, ours)? {
                Standing::Committed => return Ok(Exchanged::Committed),
                Standing::Stale => return Ok(Exchanged::Stale { was_tried: true }),
                Standing::Open => {}
            }
        }
    }

    /// Looks what the versions since `found` have done to the files, and takes it to the newest.
    fn standing_of(
        &self,
        found: &mut Found,
        change: &Change<'_>,
        gone: &BTreeSet<Path>,
        ours: Option<&Path>,
    ) -> Result<Standing, StorageError> {
        let domain = change.domain.map(|(name, _)| name);
        for version in found.version + 1..=self.version() {
            let changes = Changes::of(&self.lake, self.table.name, version)?;
            if ours.is_some_and(|ours| changes.added.contains(ours)) {
                return Ok(Standing::Committed);
            }
            let is_other = domain.is_some_and(|domain| changes.domains.contains(domain));
            if is_other || changes.removed.keys().any(|path| gone.contains(path)) {
                return Ok(Standing::Stale);
            }
            found.version = version;
        }
        Ok(Standing::Open)
    }
}
