//! Account files, as they are changed by the proxy itself.
//!
//! Enters: the name of a file and what to make of its content. Leaves: the file, and the accounts of its
//! folder in force. May go wrong: the folder cannot be written; then the file and the accounts stay.

use super::{State, accounts, atomic};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;

/// What to make of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// This.
    New(Vec<u8>),
    /// Nothing: it goes.
    Gone,
}

impl State {
    /// The folder of accounts.
    pub fn accounts_folder(&self) -> PathBuf {
        accounts::folder(&self.snapshot.load().config.auth.auth_dir)
    }

    /// The content of an account file; `None`: it is not there.
    pub fn account_file(&self, name: &str) -> Result<Option<Vec<u8>>, String> {
        let folder = self.accounts_folder();
        let path = folder.join(name);
        match path.symlink_metadata() {
            Ok(_) => accounts::bytes(&folder, &path).map(Some),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(format!("cannot be read: {error}")),
        }
    }

    /// Changes account files, one change after the other, and puts what the folder holds then in force.
    /// `change` gets the content before; `name` has to be one that leads nowhere else. Reads and writes files.
    pub fn edit_account<E: From<io::Error>>(
        &self,
        name: &str,
        change: impl FnOnce(Option<Vec<u8>>) -> Result<Content, E>,
    ) -> Result<(), E> {
        let _one_at_a_time = self.account_files.lock();
        let before = self.account_file(name).map_err(io::Error::other)?;
        let folder = self.accounts_folder();
        let path = folder.join(name);
        match change(before)? {
            Content::New(bytes) => {
                std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder)?;
                atomic::write(&path, &bytes)?;
            }
            Content::Gone => std::fs::remove_file(&path)?,
        }
        self.apply_accounts(accounts::scan(&folder));
        tracing::info!(account = name, "account file changed by management");
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::accounts::Accounts;
    use testkit::scratch::Scratch;

    #[test]
    fn a_change_is_in_the_file_and_in_force() {
        let scratch = Scratch::new();
        let folder = scratch.path().join("auths");
        let text = format!("auth-dir: {}\n", folder.display());
        let state = State::new(config::load(text.as_bytes()).unwrap().config, Accounts::default()).unwrap().0;
        let set = |text: &str| {
            let content = Content::New(text.as_bytes().to_vec());
            state.edit_account("a.json", |_| Ok::<_, io::Error>(content))
        };
        set(r#"{"type":"claude","access_token":"x"}"#).unwrap();
        assert_eq!(state.pool.credentials(state.now()).len(), 1);
        assert_eq!(
            std::fs::metadata(&folder).map(|m| std::os::unix::fs::MetadataExt::mode(&m) & 0o777).unwrap(),
            0o700
        );
        let seen = state.account_file("a.json").unwrap().unwrap();
        assert!(seen.starts_with(b"{\"type\""));
        state
            .edit_account("a.json", |before| {
                Ok::<_, io::Error>(if before.is_some() { Content::Gone } else { panic!() })
            })
            .unwrap();
        assert_eq!(state.pool.credentials(state.now()).len(), 0);
        assert_eq!(state.account_file("a.json").unwrap(), None);
    }
}
