//! Cache marks: at most four, and those with an hour before those with five minutes.
//!
//! Enters: the places of a prompt that may carry a mark, in the order in which the API reads it (tools,
//! system, messages). Leaves: marks that the API takes. May go wrong: nothing; a mark that had to go or to
//! be shortened is recorded as [`LossKind::CacheMark`].

use crate::ir::{CacheMark, LossKind, Losses};

/// Most marks of one request.
const MOST: usize = 4;

/// Where in the prompt a mark stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Section {
    /// On a tool.
    Tools,
    /// On a system block.
    System,
    /// On a block of a message.
    Messages,
}

/// A place that may carry a mark.
pub(super) struct Slot<'s> {
    /// Its section.
    pub(super) section: Section,
    /// The mark.
    pub(super) mark: &'s mut Option<CacheMark>,
    /// Whether a mark is set here when the client set none: the ends of stable prefixes.
    pub(super) ends_prefix: bool,
}

/// Makes the marks legal. With `set` and without any mark of the client, sets its own: formats without marks
/// have caches that work by themselves, and their clients expect one here as well.
pub(super) fn fit(slots: &mut [Slot<'_>], set: bool, losses: &mut Losses) {
    if slots.iter().all(|slot| slot.mark.is_none()) {
        if set {
            for slot in slots.iter_mut().filter(|slot| slot.ends_prefix).take(MOST) {
                *slot.mark = Some(CacheMark { hour: false });
            }
        }
        return;
    }
    let marked: Vec<usize> =
        slots.iter().enumerate().filter(|(_, slot)| slot.mark.is_some()).map(|(n, _)| n).collect();
    let kept = choose(slots, &marked);
    let mut short = false;
    for n in marked {
        let Some(slot) = slots.get_mut(n) else { continue };
        if !kept.contains(&n) {
            *slot.mark = None;
            losses.member(LossKind::CacheMark, "cache_control");
            continue;
        }
        if let Some(mark) = slot.mark {
            if mark.hour && short {
                mark.hour = false;
                losses.member(LossKind::CacheMark, "cache_control");
            }
            short |= !mark.hour;
        }
    }
}

/// The marks that stay: the last of the tools and of the system, which all turns share, then the last of all.
fn choose(slots: &[Slot<'_>], marked: &[usize]) -> Vec<usize> {
    if marked.len() <= MOST {
        return marked.to_vec();
    }
    let in_section = |section| {
        marked.iter().rev().copied().find(|n| slots.get(*n).is_some_and(|slot| slot.section == section))
    };
    let mut kept: Vec<usize> = [Section::Tools, Section::System].into_iter().filter_map(in_section).collect();
    for n in marked.iter().rev() {
        if kept.len() < MOST && !kept.contains(n) {
            kept.push(*n);
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn run(marks: &mut [(Section, Option<CacheMark>)], set: bool) -> Losses {
        let mut losses = Losses::default();
        let mut slots: Vec<_> = marks
            .iter_mut()
            .map(|(section, mark)| Slot { section: *section, mark, ends_prefix: true })
            .collect();
        fit(&mut slots, set, &mut losses);
        losses
    }

    const HOUR: Option<CacheMark> = Some(CacheMark { hour: true });
    const SHORT: Option<CacheMark> = Some(CacheMark { hour: false });

    #[test]
    fn tools_and_system_keep_theirs_when_there_are_too_many() {
        let mut marks = vec![(Section::Tools, HOUR), (Section::System, HOUR), (Section::System, HOUR)];
        marks.extend([(Section::Messages, SHORT); 4]);
        let losses = run(&mut marks, false);
        let left: Vec<bool> = marks.iter().map(|(_, mark)| mark.is_some()).collect();
        assert_eq!(left, [true, false, true, false, false, true, true]);
        assert_eq!(losses.len(), 3);
    }

    #[test]
    fn an_hour_behind_five_minutes_is_shortened() {
        let mut marks = [(Section::System, SHORT), (Section::Messages, HOUR)];
        assert_eq!(run(&mut marks, false).len(), 1);
        assert_eq!(marks[1].1, SHORT);
    }

    #[test]
    fn own_marks_are_only_set_when_asked_for_and_none_is_there() {
        let mut none = [(Section::System, None), (Section::Messages, None)];
        run(&mut none, false);
        assert_eq!(none[0].1, None);
        run(&mut none, true);
        assert_eq!((none[0].1, none[1].1), (SHORT, SHORT));
        let mut one = [(Section::System, None), (Section::Messages, HOUR)];
        run(&mut one, true);
        assert_eq!(one[0].1, None);
    }

    proptest! {
        #[test]
        fn never_more_than_four_and_never_an_hour_after_five_minutes(
            input in prop::collection::vec((0..3_u8, prop::option::of(any::<bool>())), 0..12)
        ) {
            let mut input = input;
            input.sort_by_key(|(section, _)| *section);
            let mut marks: Vec<_> = input
                .into_iter()
                .map(|(s, hour)| {
                    let section = [Section::Tools, Section::System, Section::Messages][usize::from(s)];
                    (section, hour.map(|hour| CacheMark { hour }))
                })
                .collect();
            run(&mut marks, true);
            let left: Vec<bool> = marks.iter().filter_map(|(_, m)| m.map(|m| m.hour)).collect();
            prop_assert!(left.len() <= 4);
            prop_assert!(left.windows(2).all(|pair| pair[0] || !pair[1]));
        }
    }
}
