//! Codex: the identity token says whose account it is, and of which workspace and plan.
//!
//! Enters: tokens. Leaves: the file `codex-EMAIL-PLAN.json`; in workspaces with a digest of the workspace
//! before the address, because one address may be in several. May go wrong: no identity.

use super::account_file::{AccountFile, digest};
use super::answer::Tokens;
use super::code::After;
use super::{About, Failed, Stage, Step};

/// Plans of workspaces.
const WORKSPACES: [&str; 4] = ["team", "business", "enterprise", "edu"];

pub(super) struct Codex;

impl After for Codex {
    fn tokens(&mut self, _about: &About, tokens: Tokens, now_s: u64) -> Result<Step, Failed> {
        file(&tokens, now_s).map(Step::Done)
    }
}

/// The file of a ChatGPT account.
pub(super) fn file(tokens: &Tokens, now_s: u64) -> Result<AccountFile, Failed> {
    let mut file = AccountFile::new("codex", tokens, now_s);
    let account = file.account().map_err(|problem| Failed::new(Stage::Profile, problem))?;
    if account.owner.is_empty() {
        return Err(Failed::new(Stage::Profile, "the identity token names no e-mail address"));
    }
    file.set("email", &account.owner);
    file.set("account_id", &account.scope);
    let plan: String =
        account.plan.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
    let plan = plan.trim_matches('-');
    let workspace = if WORKSPACES.contains(&plan) && !account.scope.is_empty() {
        digest(&account.scope).chars().take(8).collect()
    } else {
        String::new()
    };
    Ok(file.named(&["codex", &workspace, &account.owner, plan]))
}
