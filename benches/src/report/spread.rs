/// Median and extremes of one figure's repetitions.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    /// The least.
    pub min: f64,
    /// The middle one; of an even number the mean of the two in the middle.
    pub median: f64,
    /// The greatest.
    pub max: f64,
}

impl Spread {
    /// Of `values`, of which those that are no number count as not measured; `None` when none is left.
    pub fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut sorted: Vec<f64> = values.into_iter().filter(|value| value.is_finite()).collect();
        sorted.sort_by(f64::total_cmp);
        let (min, max) = (*sorted.first()?, *sorted.last()?);
        let low = *sorted.get((sorted.len() - 1) / 2)?;
        let high = *sorted.get(sorted.len() / 2)?;
        // Halved first: the sum of two great numbers may be none.
        Some(Self { min, median: low / 2.0 + high / 2.0, max })
    }
}

/// `figure` in units of `base`; `None` where that is no number.
pub fn ratio(figure: f64, base: f64) -> Option<f64> {
    Some(figure / base).filter(|ratio| ratio.is_finite())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_number_was_not_measured() {
        assert_eq!(Spread::of([]), None);
        assert_eq!(Spread::of([f64::NAN, f64::INFINITY]), None);
        assert_eq!(Spread::of([f64::NAN, 2.0]), Some(Spread { min: 2.0, median: 2.0, max: 2.0 }));
    }

    #[test]
    fn a_median_of_great_numbers_is_a_number() {
        let spread = Spread::of([f64::MAX, f64::MAX]).unwrap();
        assert_eq!(spread.median, f64::MAX);
        assert_eq!(Spread::of([4.0, 1.0, 2.0, 9.0]).unwrap().median, 3.0);
    }

    #[test]
    fn nothing_is_no_base_of_a_ratio() {
        assert_eq!(ratio(3.0, 2.0), Some(1.5));
        assert_eq!(ratio(3.0, 0.0), None);
        assert_eq!(ratio(0.0, 0.0), None);
    }
}
