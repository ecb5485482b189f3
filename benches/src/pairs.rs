//! Interleaved pairs of measurements and what is said about them.

use anyhow::Result;

/// What a row must reach, as times: ours and theirs.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Demand {
    /// Ours takes at most this part of theirs.
    AtMost(f64),
    /// Ours moves at least this many times as much in the same time.
    TimesFaster(f64),
    /// Nothing: the other side is there to be compared with, as a floor is.
    None,
}

impl Demand {
    fn ratio(self, ours: f64, theirs: f64) -> f64 {
        match self {
            Self::AtMost(_) | Self::None => ours / theirs,
            Self::TimesFaster(_) => theirs / ours,
        }
    }

    fn is_met_by(self, ratio: f64) -> bool {
        match self {
            Self::AtMost(limit) => ratio <= limit,
            Self::TimesFaster(limit) => ratio >= limit,
            Self::None => true,
        }
    }

    /// The demand as a table says it.
    pub(crate) fn text(self) -> String {
        match self {
            Self::AtMost(limit) => format!("≤ {limit:.2}"),
            Self::TimesFaster(limit) => format!("≥ {limit:.0}× throughput"),
            Self::None => "—".to_owned(),
        }
    }
}

/// What was measured in turns: times in milliseconds, unless the unit says otherwise.
#[derive(Debug, Clone, Default)]
pub(crate) struct Pairs {
    pub(crate) ours: Vec<f64>,
    pub(crate) theirs: Vec<f64>,
    pub(crate) unit: &'static str,
}

impl Pairs {
    /// Measures `pairs` times ours, then theirs, after one unmeasured turn of each.
    pub(crate) fn measure(
        pairs: usize,
        mut ours: impl FnMut() -> Result<f64>,
        mut theirs: impl FnMut() -> Result<f64>,
    ) -> Result<Self> {
        let mut taken = Self { unit: "ms", ..Self::default() };
        ours()?;
        theirs()?;
        for _ in 0..pairs {
            taken.ours.push(ours()?);
            taken.theirs.push(theirs()?);
        }
        Ok(taken)
    }

    /// Ratio of the medians.
    pub(crate) fn ratio_of_medians(&self, demand: Demand) -> f64 {
        demand.ratio(median(&self.ours), median(&self.theirs))
    }

    /// Median of each pair's ratio.
    pub(crate) fn median_of_ratios(&self, demand: Demand) -> f64 {
        let each: Vec<_> = self.ours.iter().zip(&self.theirs).map(|(a, b)| demand.ratio(*a, *b)).collect();
        median(&each)
    }

    /// Whether both ways of comparing meet the demand.
    pub(crate) fn meet(&self, demand: Demand) -> bool {
        demand.is_met_by(self.ratio_of_medians(demand)) && demand.is_met_by(self.median_of_ratios(demand))
    }
}

/// The middle value, or the mean of the two in the middle; not a number when there is none.
pub(crate) fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => sorted[n / 2],
        n => f64::midpoint(sorted[n / 2 - 1], sorted[n / 2]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_passes_only_when_both_comparisons_do() {
        assert!((median(&[3.0, 1.0, 2.0]) - 2.0).abs() < 1e-9);
        assert!((median(&[4.0, 1.0, 2.0, 3.0]) - 2.5).abs() < 1e-9);
        assert!(median(&[]).is_nan());
        let pairs = Pairs { ours: vec![1.0, 2.0, 30.0], theirs: vec![10.0, 20.0, 40.0], unit: "ms" };
        assert!(pairs.meet(Demand::AtMost(0.1)) && !pairs.meet(Demand::AtMost(0.09)));
        assert!(pairs.meet(Demand::TimesFaster(10.0)) && !pairs.meet(Demand::TimesFaster(11.0)));
        let split = Pairs { ours: vec![1.0, 10.0, 11.0], theirs: vec![100.0, 20.0, 20.0], unit: "ms" };
        assert!((split.ratio_of_medians(Demand::AtMost(1.0)) - 0.5).abs() < 1e-9);
        assert!(split.meet(Demand::AtMost(0.5)) && !split.meet(Demand::AtMost(0.49)));
    }
}
