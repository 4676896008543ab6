//! Chance that can be replayed: its seed is printed, and `SLUICE_E2E_SEED` sets it.

use std::{fs, ops::RangeInclusive, time::Duration};

use anyhow::{Context, Result};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use sluice_e2e::check::AGAIN_VARIABLE;

use super::Space;
use crate::figure;

/// A source of chance.
pub struct Chance(StdRng);

impl Chance {
    /// From the environment's seed, or from a new one; a test that is tried again has that of its first try.
    pub fn new(space: &Space) -> Result<Self> {
        let seeds = space.place.kubernetes.settings().state.join("seeds");
        let kept = seeds.join(&space.test);
        let before = match std::env::var_os(AGAIN_VARIABLE) {
            Some(_) => fs::read_to_string(&kept).ok().and_then(|seed| seed.parse().ok()),
            None => None,
        };
        let seed = number("SLUICE_E2E_SEED")?.or(before);
        let seed = seed.unwrap_or_else(|| rand::random::<u32>().into());
        fs::create_dir_all(&seeds)?;
        fs::write(&kept, seed.to_string())?;
        figure!(space, "by chance: again with SLUICE_E2E_SEED={seed}");
        Ok(Self(StdRng::seed_from_u64(seed)))
    }

    /// A number.
    pub fn within(&mut self, range: RangeInclusive<u64>) -> u64 {
        self.0.random_range(range)
    }

    /// A time in milliseconds.
    pub fn time(&mut self, milliseconds: RangeInclusive<u64>) -> Duration {
        Duration::from_millis(self.within(milliseconds))
    }

    /// One of several.
    pub fn one_of<'a, T>(&mut self, all: &'a [T]) -> &'a T {
        &all[self.0.random_range(0..all.len())]
    }
}

/// A number from the environment, if it is set.
pub fn number(variable: &str) -> Result<Option<u64>> {
    let Ok(text) = std::env::var(variable) else { return Ok(None) };
    let number = text.trim().parse();
    number.map(Some).with_context(|| format!("{variable} is no whole number: {text}"))
}
