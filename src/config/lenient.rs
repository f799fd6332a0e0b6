//! Number rules that several sections share.
//!
//! Enters: a number of the file. Leaves: the number that is meant. May go wrong: what is not a whole number.

use serde::{Deserialize, Deserializer};

/// Less than nothing means nothing.
pub(crate) fn floor_zero<'de, D, T>(input: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: TryFrom<i64> + Bounded,
{
    i64::deserialize(input).map(|number| T::try_from(number.max(0)).unwrap_or(T::MOST))
}

/// A type that knows its largest number.
pub(crate) trait Bounded {
    /// The largest.
    const MOST: Self;
}

impl Bounded for u32 {
    const MOST: Self = Self::MAX;
}

impl Bounded for u64 {
    const MOST: Self = Self::MAX;
}

/// Less than nothing means: what is said one level up.
pub(crate) fn inherit_below_zero<'de, D: Deserializer<'de>>(input: D) -> Result<Option<u32>, D::Error> {
    let number = Option::<i64>::deserialize(input)?;
    Ok(number.filter(|number| *number >= 0).map(|number| u32::try_from(number).unwrap_or(u32::MAX)))
}
