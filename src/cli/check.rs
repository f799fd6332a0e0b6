//! `cliproxy check`: what is wrong with a configuration.

use super::serve::read_named;
use super::{ConfigArgs, say};
use std::process::ExitCode;

/// Prints the verdict.
pub(super) fn run(args: &ConfigArgs) -> ExitCode {
    match read_named(args.config.as_deref()) {
        Err(code) => code,
        Ok((file, config, accounts)) => {
            let (settings, specs) = pool::from_config(&config, &accounts.good);
            let loaded = pool::Pool::default().update(settings, specs);
            say(&format!(
                "{}: fine: {} credentials, {} models\n",
                file.display(),
                loaded.credentials,
                loaded.models
            ));
            ExitCode::SUCCESS
        }
    }
}
