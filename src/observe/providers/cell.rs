//! What is counted of one model of one provider.
//!
//! Enters: calls and remarks with their time. Leaves: [`Counts`] since the start and [`Window`]s. Nothing may
//! go wrong: a clock that jumps back counts in the newest slot.

use super::{Call, Remark};
use std::collections::{BTreeMap, VecDeque};

/// Seconds of a slot.
const SLOT_S: u64 = 15;
/// Slots that are kept: an hour.
const SLOTS: u64 = 240;
/// Hours that are kept: a day and the one that runs.
const HOURS: u64 = 25;
/// Most different statuses that are told apart.
const STATUSES: usize = 64;

/// Reasoning tokens over answers that had them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span {
    tokens: u64,
    answers: u64,
}

impl Span {
    /// So many tokens over so many answers.
    pub fn new(tokens: u64, answers: u64) -> Self {
        Self { tokens, answers }
    }

    /// The answers.
    pub fn answers(self) -> u64 {
        self.answers
    }

    /// Adds up.
    pub fn add(&mut self, other: &Self) {
        self.tokens = self.tokens.saturating_add(other.tokens);
        self.answers = self.answers.saturating_add(other.answers);
    }

    /// Tokens per answer; 0: none is known.
    pub fn mean(self) -> f64 {
        if self.answers == 0 { 0.0 } else { self.tokens as f64 / self.answers as f64 }
    }
}

/// Counts since the start.
#[derive(Clone, Debug, Default)]
pub struct Counts {
    /// Calls.
    pub calls: u64,
    /// Of these: good answers.
    pub good: u64,
    /// Of these: failures; clients that left are none.
    pub failed: u64,
    /// Failures after which another credential was tried.
    pub failover: u64,
    /// Prompt tokens.
    pub input: u64,
    /// Output tokens.
    pub output: u64,
    /// Prompt tokens read from a cache.
    pub cached: u64,
    /// Reasoning tokens.
    pub reasoning: u64,
    /// Good answers that said nothing of tokens.
    pub usage_missing: u64,
    /// Answers without content.
    pub empty: u64,
    /// Answers that thought more or less than was asked for.
    pub thinking_mismatch: u64,
    /// Calls by status.
    pub status: BTreeMap<u16, u64>,
    /// Calls and failures by endpoint.
    pub endpoints: BTreeMap<&'static str, (u64, u64)>,
    /// When it was called last, in seconds since 1970.
    pub last_s: u64,
    /// Milliseconds from head to end, of good answers.
    pub latency: Quantiles,
    /// Milliseconds to the first byte.
    pub first_event: Quantiles,
}

impl Counts {
    /// Adds up.
    pub fn add(&mut self, other: &Self) {
        for (sum, more) in [
            (&mut self.calls, other.calls),
            (&mut self.good, other.good),
            (&mut self.failed, other.failed),
            (&mut self.failover, other.failover),
            (&mut self.input, other.input),
            (&mut self.output, other.output),
            (&mut self.cached, other.cached),
            (&mut self.reasoning, other.reasoning),
            (&mut self.usage_missing, other.usage_missing),
            (&mut self.empty, other.empty),
            (&mut self.thinking_mismatch, other.thinking_mismatch),
        ] {
            *sum = sum.saturating_add(more);
        }
        for (status, count) in &other.status {
            *self.status.entry(*status).or_default() += count;
        }
        for (endpoint, (calls, failed)) in &other.endpoints {
            let sum = self.endpoints.entry(endpoint).or_default();
            *sum = (sum.0 + calls, sum.1 + failed);
        }
        self.last_s = self.last_s.max(other.last_s);
        self.latency.add(&other.latency);
        self.first_event.add(&other.first_event);
    }
}

/// Counts of a window.
#[derive(Clone, Debug, Default)]
pub struct Window {
    /// Calls.
    pub calls: u64,
    /// Of these: failures.
    pub failed: u64,
    /// Answers without content.
    pub empty: u64,
    /// Answers that thought more or less than was asked for.
    pub thinking_mismatch: u64,
    /// Calls by status.
    pub status: BTreeMap<u16, u64>,
    /// Reasoning.
    pub span: Span,
}

impl Window {
    /// Adds up.
    pub fn add(&mut self, other: &Self) {
        self.calls += other.calls;
        self.failed += other.failed;
        self.empty += other.empty;
        self.thinking_mismatch += other.thinking_mismatch;
        self.span.add(&other.span);
        for (status, count) in &other.status {
            *self.status.entry(*status).or_default() += count;
        }
    }

    /// Share of failures; 0 where there were no calls.
    pub fn error_rate(&self) -> f64 {
        share(self.failed, self.calls)
    }
}

/// A share; 0 of nothing.
pub(super) fn share(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

/// All that is known of one model of one provider.
#[derive(Debug, Default)]
pub(super) struct Cell {
    counts: Counts,
    slots: Line<Window>,
    /// Reasoning by the hour.
    hours: Line<Span>,
}

impl Cell {
    pub(super) fn call(&mut self, call: &Call<'_>, now_s: u64) {
        let good = call.status < 400;
        let failed = u64::from(!good && call.status != 499);
        let counts = &mut self.counts;
        counts.calls += 1;
        counts.good += u64::from(good);
        counts.failed += failed;
        counts.failover += u64::from(call.failover);
        counts.last_s = counts.last_s.max(now_s);
        if counts.status.len() < STATUSES || counts.status.contains_key(&call.status) {
            *counts.status.entry(call.status).or_default() += 1;
        }
        let endpoint = counts.endpoints.entry(call.endpoint).or_default();
        *endpoint = (endpoint.0 + 1, endpoint.1 + failed);
        if good {
            counts.latency.note(call.latency_ms);
        }
        if let Some(first) = call.first_event_ms {
            counts.first_event.note(first);
        }
        let mut span = Span::default();
        if let Some(usage) = call.usage {
            counts.input = counts.input.saturating_add(usage.prompt());
            counts.output = counts.output.saturating_add(usage.output.unwrap_or(0));
            counts.cached = counts.cached.saturating_add(usage.cache_read.unwrap_or(0));
            let reasoning = usage.reasoning.unwrap_or(0);
            counts.reasoning = counts.reasoning.saturating_add(reasoning);
            counts.usage_missing += u64::from(usage.is_unknown());
            if !usage.is_unknown() {
                span = Span { tokens: reasoning, answers: 1 };
            }
        }
        let slot = self.slot(now_s);
        slot.calls += 1;
        slot.failed += failed;
        slot.span.add(&span);
        if slot.status.len() < STATUSES || slot.status.contains_key(&call.status) {
            *slot.status.entry(call.status).or_default() += 1;
        }
        self.hour(now_s).add(&span);
    }

    pub(super) fn remark(&mut self, remark: Remark, now_s: u64) {
        let (counts, slot) = (&mut self.counts, self.slots.at(now_s / SLOT_S, SLOTS));
        let (all, window) = match remark {
            Remark::Empty => (&mut counts.empty, &mut slot.empty),
            Remark::ThinkingMismatch => (&mut counts.thinking_mismatch, &mut slot.thinking_mismatch),
        };
        *all += 1;
        *window += 1;
    }

    pub(super) fn counts(&self) -> &Counts {
        &self.counts
    }

    /// The sum of the slots that reach into the last `window_s` seconds.
    pub(super) fn window(&self, window_s: u64, now_s: u64) -> Window {
        let oldest = now_s.saturating_sub(window_s) / SLOT_S;
        let mut sum = Window::default();
        self.slots.iter().filter(|(number, _)| *number > oldest).for_each(|(_, slot)| sum.add(slot));
        sum
    }

    /// Reasoning of the hours before this one, of the last `day_s` seconds.
    pub(super) fn day(&self, now_s: u64, day_s: u64) -> Span {
        let day = hours(now_s, day_s);
        let mut sum = Span::default();
        self.hours.iter().filter(|(hour, _)| day.contains(hour)).for_each(|(_, span)| sum.add(span));
        sum
    }

    fn slot(&mut self, now_s: u64) -> &mut Window {
        self.slots.at(now_s / SLOT_S, SLOTS)
    }

    fn hour(&mut self, now_s: u64) -> &mut Span {
        self.hours.at(now_s / 3600, HOURS)
    }
}

/// The hours before this one, of the last `day_s` seconds.
pub(super) fn hours(now_s: u64, day_s: u64) -> std::ops::Range<u64> {
    now_s.saturating_sub(day_s) / 3600..now_s / 3600
}

/// Numbered slots, of which only those with something in them are kept.
#[derive(Debug, Default)]
struct Line<T> {
    /// The oldest first.
    past: VecDeque<(u64, T)>,
    newest: (u64, T),
}

impl<T: Default> Line<T> {
    /// The slot of a number, or the newest one if that is later. Slots that are `most` older leave.
    fn at(&mut self, number: u64, most: u64) -> &mut T {
        if self.newest.0 < number {
            while self.past.front().is_some_and(|(first, _)| first.saturating_add(most) <= number) {
                self.past.pop_front();
            }
            self.past.push_back(std::mem::replace(&mut self.newest, (number, T::default())));
        }
        &mut self.newest.1
    }

    fn iter(&self) -> impl Iterator<Item = &(u64, T)> {
        self.past.iter().chain(std::iter::once(&self.newest))
    }
}

/// Quantiles of milliseconds, within a tenth: counts by size class. Old values fade, so that a quantile
/// speaks of the last few thousand.
#[derive(Clone, Debug, Default)]
pub struct Quantiles {
    classes: BTreeMap<u16, u32>,
    total: u32,
}

/// Values after which all counts are halved.
const FADE: u32 = 8192;
/// Size classes per doubling.
const PER_DOUBLING: f64 = 8.0;

impl Quantiles {
    fn note(&mut self, ms: u64) {
        let class = ((ms.max(1) as f64).log2() * PER_DOUBLING).round() as u16;
        *self.classes.entry(class).or_default() += 1;
        self.total += 1;
        if self.total >= FADE {
            self.classes.values_mut().for_each(|count| *count /= 2);
            self.classes.retain(|_, count| *count > 0);
            self.total = self.classes.values().sum();
        }
    }

    fn add(&mut self, other: &Self) {
        for (class, count) in &other.classes {
            *self.classes.entry(*class).or_default() += count;
        }
        self.total += other.total;
    }

    /// The value below which this share of all values lies; 0 where there are none.
    pub fn at(&self, share: f64) -> u64 {
        let wanted = (f64::from(self.total) * share).ceil().max(1.0) as u32;
        let mut passed = 0;
        for (class, count) in &self.classes {
            passed += count;
            if passed >= wanted {
                return (f64::from(*class) / PER_DOUBLING).exp2().round() as u64;
            }
        }
        0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_right_within_a_tenth_and_follow_the_recent() {
        let mut quantiles = Quantiles::default();
        assert_eq!(quantiles.at(0.5), 0);
        (1..=1000).for_each(|ms| quantiles.note(ms));
        for (share, ms) in [(0.5, 500.0), (0.95, 950.0), (0.01, 10.0)] {
            let told = quantiles.at(share) as f64;
            assert!((told / ms - 1.0).abs() < 0.1, "{share}: {told}");
        }
        (0..100_000).for_each(|_| quantiles.note(4000));
        assert!((quantiles.at(0.05) as f64 / 4000.0 - 1.0).abs() < 0.1);
    }

    #[test]
    fn an_hour_is_kept_and_no_more_and_a_clock_that_jumps_back_harms_nothing() {
        let mut cell = Cell::default();
        for second in (0..10_000).step_by(5) {
            cell.remark(Remark::Empty, second);
        }
        assert!(cell.slots.iter().count() <= SLOTS as usize + 1);
        cell.remark(Remark::Empty, 3);
        assert_eq!(cell.counts().empty, 2001);
        assert!(cell.window(600, 10_000).empty >= 115);
    }

    #[test]
    fn todays_reasoning_is_compared_with_yesterdays_and_not_with_itself() {
        let mut cell = Cell::default();
        cell.hour(3600).add(&Span { tokens: 100, answers: 2 });
        cell.hour(2 * 3600).add(&Span { tokens: 900, answers: 1 });
        assert_eq!(cell.day(2 * 3600 + 5, 24 * 3600), Span { tokens: 100, answers: 2 });
        assert_eq!(cell.day(200 * 3600, 24 * 3600), Span::default());
    }
}
