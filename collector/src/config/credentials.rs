//! Users and passwords of miners, from a file that only this user may read.
//!
//! Nothing of the file's text is ever in an error or in a log: an error names the file, the line and what should be there.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::{File, Metadata};
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;

use racklake_schemas::settings::SettingsError;
use serde::Deserialize;

/// Longest file that is read.
const FILE_BYTES_MAX: u64 = 1024 * 1024;
/// What a file looks like.
const SHAPE: &str = "wanted are [[credentials]] tables with name, user and password, each a text in quotes";

/// User and password of miners.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Credentials {
    /// The name that `[[miner]]` and `[[miner_range]]` say.
    pub name: String,
    /// The user.
    pub user: String,
    /// The password.
    pub password: String,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "credentials {:?} (not shown)", self.name)
    }
}

/// What a file of credentials holds, by name; cheap to clone.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CredentialsFile {
    by_name: Arc<BTreeMap<String, Credentials>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Text {
    #[serde(default)]
    credentials: Vec<Credentials>,
}

impl CredentialsFile {
    /// Those of a name.
    pub fn get(&self, name: &str) -> Option<&Credentials> {
        self.by_name.get(name)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.by_name.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.by_name.is_empty()
    }

    /// Reads a file.
    ///
    /// # Errors
    /// When others than its owner may read it, when it is another user's, and when it is not as it should be. The text
    /// names file, line and remedy, and nothing that the file says.
    pub fn read(path: &Path) -> Result<CredentialsFile, SettingsError> {
        let refuse = |text: String| SettingsError(format!("{}: {text}", path.display()));
        let unreadable = |error: std::io::Error| refuse(format!("cannot be read: {error}"));
        // Looked at before it is opened, since opening a pipe may wait for ever.
        check_access(&std::fs::metadata(path).map_err(unreadable)?, path)?;
        let file = File::open(path).map_err(unreadable)?;
        check_access(&file.metadata().map_err(unreadable)?, path)?;
        let mut bytes = Vec::new();
        file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(unreadable)?;
        if bytes.len() as u64 > FILE_BYTES_MAX {
            return Err(refuse(format!("has more than {FILE_BYTES_MAX} bytes; {SHAPE}")));
        }
        let text = String::from_utf8(bytes).map_err(|_| refuse(format!("is no text in UTF-8; {SHAPE}")))?;
        CredentialsFile::parse(&text).map_err(|(line, told)| match line {
            Some(line) => SettingsError(format!("{}:{line}: {told}", path.display())),
            None => refuse(told),
        })
    }

    /// The credentials, or the line of a mistake and what is wrong there.
    fn parse(text: &str) -> Result<CredentialsFile, (Option<usize>, String)> {
        // The parser's own message may quote the text.
        let parsed: Text = toml::from_str(text).map_err(|error| {
            let before = error.span().and_then(|span| text.as_bytes().get(..span.start));
            (before.map(|before| 1 + before.iter().filter(|byte| **byte == b'\n').count()), SHAPE.to_owned())
        })?;
        let mut by_name = BTreeMap::new();
        for credentials in parsed.credentials {
            let name = credentials.name.clone();
            if name.is_empty() || name.chars().any(char::is_control) {
                return Err((None, "a [[credentials]] has no name, or one with control characters".to_owned()));
            }
            // A colon would move into the password where both are sent as one text.
            if credentials.user.contains(':') || credentials.user.chars().any(char::is_control) {
                return Err((None, format!("the user of {name:?} has a colon or a control character in it")));
            }
            if by_name.insert(name.clone(), credentials).is_some() {
                return Err((None, format!("the name {name:?} is there twice; remove one")));
            }
        }
        Ok(CredentialsFile { by_name: Arc::new(by_name) })
    }
}

/// Whether the file is this user's or root's and nobody else may read it.
fn check_access(file: &Metadata, path: &Path) -> Result<(), SettingsError> {
    let shown = path.display();
    let refuse = |text: String| Err(SettingsError(format!("{shown}: {text}")));
    if !file.is_file() {
        return refuse("is no file".to_owned());
    }
    if file.mode() & 0o077 != 0 {
        return refuse(format!(
            "others than its owner may use it (mode {:04o}), and it holds passwords; run chmod 600 {shown}",
            file.mode() & 0o7777
        ));
    }
    // The owner of a process's own folder is the user that it runs as.
    let user = std::fs::metadata("/proc/self").map(|own| own.uid());
    match user {
        Ok(user) if file.uid() != user && file.uid() != 0 => {
            refuse(format!("belongs to user {}, not to {user} or root; run chown {user} {shown}", file.uid()))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    const FILE: &str = "[[credentials]]\nname = \"hall\"\nuser = \"root\"\npassword = \"hunter2\"\n";

    fn written(text: &str, mode: u32) -> (tempfile::TempDir, std::path::PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("miners.toml");
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        (folder, path)
    }

    #[test]
    fn credentials_are_found_by_name_and_never_printed() {
        for mode in [0o600, 0o400] {
            let (_folder, path) = written(FILE, mode);
            let file = CredentialsFile::read(&path).unwrap();
            let found = file.get("hall").unwrap();
            assert_eq!((found.user.as_str(), found.password.as_str()), ("root", "hunter2"));
            assert_eq!((file.get("else"), file.len()), (None, 1));
            assert!(!format!("{file:?}").contains("hunter2"));
        }
    }

    #[test]
    fn a_file_that_others_may_read_is_refused_with_the_remedy() {
        for mode in [0o640, 0o604, 0o660, 0o644] {
            let (_folder, path) = written(FILE, mode);
            let error = CredentialsFile::read(&path).unwrap_err().to_string();
            assert!(error.contains(&format!("chmod 600 {}", path.display())), "{error}");
        }
    }

    #[test]
    fn mistakes_are_told_without_what_the_file_says() {
        for (text, told) in [
            ("[[credentials]]\nname = \"hall\"\nuser = \"root\"\npassword = hunter2\n", "miners.toml:4: "),
            ("[[credentials]]\nname = \"hall\"\nuser = \"root\"\npassword = 4711\n", "miners.toml:4: "),
            ("[[credentials]]\nname = \"hall\"\nuser = \"root\"\nhunter2 = 4711\n", "name, user and password"),
            ("password = \"hunter2\"\n", "[[credentials]]"),
            (&format!("{FILE}{FILE}"), "twice"),
            ("[[credentials]]\nname = \"\"\nuser = \"root\"\npassword = \"hunter2\"\n", "no name"),
            ("[[credentials]]\nname = \"a\"\nuser = \"ro:ot\"\npassword = \"hunter2\"\n", "colon"),
        ] {
            let (_folder, path) = written(text, 0o600);
            let error = CredentialsFile::read(&path).unwrap_err().to_string();
            assert!(error.contains(told), "{error}");
            assert!(!error.contains("hunter2") && !error.contains("4711"), "{error}");
        }
        let error = CredentialsFile::read(Path::new("/nowhere/miners.toml")).unwrap_err().to_string();
        assert!(error.contains("/nowhere/miners.toml"), "{error}");
    }
}
