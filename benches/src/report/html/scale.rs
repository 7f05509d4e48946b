/// From a figure to a place between the left edge, 0, and the right edge, 100.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Scale {
    /// From nought; equal steps are equal distances.
    Linear {
        /// What the right edge is; more than nought.
        max: f64,
    },
    /// Equal factors are equal distances, from one power of ten to another.
    Logarithmic {
        /// Exponent of the left edge.
        low: i32,
        /// Exponent of the right edge, more than `low`.
        high: i32,
    },
}

/// Ticks a linear axis has at most, beside that at nought.
const TICKS: f64 = 5.0;
/// Powers of ten that an axis spans at most: what is smaller stands at the left edge.
const DECADES: i32 = 8;
/// Greatest exponent of ten a number has.
const GREATEST: f64 = f64::MAX_10_EXP as f64;

impl Scale {
    /// A linear axis that holds every one of `values`; `None` without a positive one.
    pub fn linear(values: impl Iterator<Item = f64>) -> Option<Self> {
        let max = values.filter(|value| value.is_finite()).fold(0.0, f64::max);
        // Below the least normal number division has no digits left.
        (max >= f64::MIN_POSITIVE * 1e3).then_some(Self::Linear { max })
    }

    /// A logarithmic axis that holds the positive ones of `values`; `None` without one.
    pub fn logarithmic(values: impl Iterator<Item = f64>) -> Option<Self> {
        let exponents = values.filter(|value| value.is_finite() && *value > 0.0).map(f64::log10);
        let (low, high) = exponents.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), exponent| {
            (low.min(exponent), high.max(exponent))
        });
        if low > high {
            return None;
        }
        // A power of ten is a number up to here.
        let (low, high) = (low.clamp(-GREATEST, GREATEST - 1.0), high.clamp(-GREATEST, GREATEST));
        let high = (high.ceil() as i32).max(low.floor() as i32 + 1);
        Some(Self::Logarithmic { low: (low.floor() as i32).max(high - DECADES), high })
    }

    /// Where `value` stands, in percent of the width.
    pub fn place(self, value: f64) -> f64 {
        let share = match self {
            Self::Linear { max } => value / max,
            Self::Logarithmic { low, high } => (value.log10() - f64::from(low)) / f64::from(high - low),
        };
        if share.is_nan() { 0.0 } else { share.clamp(0.0, 1.0) * 100.0 }
    }

    /// Round values to write at the axis.
    pub fn ticks(self) -> Vec<f64> {
        match self {
            Self::Linear { max } => {
                let step = round_step(max / TICKS);
                (0..=TICKS as u32).map(|n| f64::from(n) * step).filter(|tick| *tick <= max).collect()
            }
            Self::Logarithmic { low, high } => (low..=high).map(|exponent| 10_f64.powi(exponent)).collect(),
        }
    }
}

/// The least of 1, 2, 5, 10 times a power of ten that is not below `step`.
fn round_step(step: f64) -> f64 {
    let decade = 10_f64.powf(step.log10().floor());
    let rounded = [1.0, 2.0, 5.0].into_iter().map(|digit| digit * decade).find(|rounded| *rounded >= step);
    rounded.unwrap_or(10.0 * decade)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn linear_ticks_are_round_and_on_the_axis() {
        let scale = Scale::linear([553_000.0, f64::NAN].into_iter()).unwrap();
        assert_eq!(scale.ticks(), [0.0, 200_000.0, 400_000.0]);
        assert_eq!((scale.place(0.0), scale.place(276_500.0), scale.place(1e9)), (0.0, 50.0, 100.0));
        assert_eq!(Scale::linear([0.0, f64::INFINITY].into_iter()), None);
    }

    #[test]
    fn logarithmic_edges_are_powers_of_ten() {
        let scale = Scale::logarithmic([30.0, 4000.0, 0.0].into_iter()).unwrap();
        assert_eq!(scale, Scale::Logarithmic { low: 1, high: 4 });
        assert_eq!(scale.ticks().len(), 4);
        assert_eq!((scale.place(0.0), scale.place(10_000.0), scale.place(f64::NAN)), (0.0, 100.0, 0.0));
        assert_eq!(Scale::logarithmic([10.0].into_iter()), Some(Scale::Logarithmic { low: 1, high: 2 }));
        assert_eq!(Scale::logarithmic([0.0].into_iter()), None);
    }

    #[test]
    fn no_number_breaks_a_scale() {
        for value in [f64::MAX, f64::MIN_POSITIVE, 5e-324, 1.0] {
            for scale in [Scale::linear([value].into_iter()), Scale::logarithmic([value, 1.0].into_iter())] {
                let Some(scale) = scale else { continue };
                assert!((0.0..=100.0).contains(&scale.place(value)), "{value} on {scale:?}");
                assert!(scale.ticks().len() <= 10 && scale.ticks().iter().all(|tick| tick.is_finite()));
            }
        }
    }
}
