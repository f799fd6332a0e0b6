//! `cliproxy check`: what is wrong with a configuration.

use super::serve::{config_file, read};
use super::{ConfigArgs, complain, say};
use std::process::ExitCode;

/// Prints the verdict.
pub(super) fn run(args: &ConfigArgs) -> ExitCode {
    let Some(file) = config_file(args.config.as_deref()) else {
        complain("there is no config.yaml here; name one with --config, or start without one for the demo");
        return ExitCode::FAILURE;
    };
    match read(&file) {
        Err(code) => code,
        Ok((config, accounts)) => {
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
