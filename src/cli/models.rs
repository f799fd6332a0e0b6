//! `cliproxy models`: what a configuration serves.

use super::serve::read_named;
use super::{ModelsArgs, say};
use pool::{Now, Pool};
use std::fmt::Write;
use std::process::ExitCode;

/// Prints the list.
pub(super) fn run(args: &ModelsArgs) -> ExitCode {
    let (_, config, accounts) = match read_named(args.config.config.as_deref()) {
        Ok(read) => read,
        Err(code) => return code,
    };
    let (settings, specs) = pool::from_config(&config, &accounts.good);
    let models = Pool::new(settings, specs).models(Now::default());
    let mut text = String::new();
    if args.json {
        let mut out = Vec::new();
        wire::json::array(&mut out, |a| {
            for model in &models {
                a.object(|o| {
                    o.str("id", &model.id);
                    o.str("provider", &model.provider);
                    o.str("upstream", &model.facts.upstream);
                });
            }
        });
        text = String::from_utf8(out).unwrap_or_default();
        text.push('\n');
    } else {
        let wide = models.iter().map(|model| model.id.len()).max().unwrap_or(0);
        for model in &models {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "{:wide$}  {}", model.id, model.provider);
        }
    }
    say(&text);
    ExitCode::SUCCESS
}
