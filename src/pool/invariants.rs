//! What is always true, checked by tests and simulations while nothing is under way in another thread.

use std::sync::atomic::Ordering::Relaxed;

use crate::Pool;

impl Pool {
    /// Checks what must hold between any two calls: requests under way = picked − reported − dropped; an
    /// untroubled credential has no record; everyone stands in exactly one place of each queue. The error
    /// says what does not.
    pub fn check_invariants(&self) -> Result<(), String> {
        let index = self.index.load();
        for credential in &index.credentials {
            let (id, state) = (&credential.spec.id, &credential.state);
            let tally = &state.tally;
            let returned = tally.reported.load(Relaxed) + tally.dropped.load(Relaxed);
            let under_way = tally.picked.load(Relaxed).checked_sub(returned);
            if under_way != Some(u64::from(state.in_flight())) {
                return Err(format!(
                    "{id}: {under_way:?} picked and not returned, {} in flight",
                    state.in_flight()
                ));
            }
            if state.troubled() == state.health().is_clear() {
                return Err(format!("{id}: the flag of trouble and the records disagree"));
            }
        }
        for entry in &index.entries {
            for bucket in &entry.buckets {
                bucket.queue.lock().check().map_err(|error| format!("{}: {error}", entry.id))?;
            }
        }
        Ok(())
    }
}
