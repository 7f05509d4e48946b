use super::escape::escape;
use super::scale::Scale;
use crate::report::figure::Figure;
use crate::report::show;
use crate::report::spread::Spread;

/// One bar with everything that is known about it.
#[derive(Clone, Copy, Debug)]
pub struct Bar<'a> {
    /// Whose it is.
    pub system: &'a str,
    /// Its colour's number.
    pub colour: usize,
    /// What is told.
    pub figure: Figure,
    /// Each repetition's round and reading.
    pub readings: &'a [(u32, f64)],
    /// A star where remarks are to be read with it.
    pub star: &'static str,
    /// The part of it that is another system's whole, drawn paler.
    pub floor: Option<f64>,
}

/// Colours the style sheet has.
const COLOURS: usize = 10;

impl Bar<'_> {
    /// A row: name, drawing, median.
    pub fn row(&self, scale: Scale) -> String {
        let spread = Spread::of(self.readings.iter().map(|&(_, value)| value));
        let (drawing, median) = match spread {
            Some(spread) => {
                (self.drawing(scale, spread), show::number(spread.median, self.figure) + self.star)
            }
            None => ("<span class=\"none\">not measured</span>".to_owned(), show::MISSING.to_owned()),
        };
        format!(
            "<div class=\"row\"><span class=\"name\">{}</span>{drawing}<span class=\"value\">{median}</span></div>\n",
            escape(self.system)
        )
    }

    fn drawing(&self, scale: Scale, spread: Spread) -> String {
        let parts = [self.rectangles(scale, spread), whisker(scale, spread), self.dots(scale)];
        let label = format!(
            "{}: median {}, from {} to {} {}",
            self.system,
            show::number(spread.median, self.figure),
            show::number(spread.min, self.figure),
            show::number(spread.max, self.figure),
            self.figure.unit()
        );
        let (label, colour) = (escape(&label), self.colour % COLOURS);
        let kind = if matches!(scale, Scale::Linear { .. }) { "bar" } else { "bar log" };
        format!(
            "<svg class=\"{kind} c{colour}\" role=\"img\" aria-label=\"{label}\">{}</svg>",
            parts.concat()
        )
    }

    /// From nought to the median, its floor paler; nothing on a logarithmic axis, which has no nought.
    fn rectangles(&self, scale: Scale, spread: Spread) -> String {
        let Scale::Linear { .. } = scale else { return String::new() };
        let end = scale.place(spread.median);
        let floor = self.floor.map_or(0.0, |floor| scale.place(floor).min(end));
        let rectangle = |class: &str, from: f64, to: f64| {
            format!(
                "<rect class=\"{class}\" x=\"{from:.2}%\" y=\"4\" width=\"{:.2}%\" height=\"14\"/>",
                to - from
            )
        };
        let below = if self.floor.is_some() { rectangle("floor", 0.0, floor) } else { String::new() };
        below + &rectangle("over", floor, end)
    }

    /// Every repetition.
    fn dots(&self, scale: Scale) -> String {
        let dot = |&(round, value): &(u32, f64)| {
            format!(
                "<circle cx=\"{:.2}%\" cy=\"11\" r=\"2.5\"><title>round {round}: {} {}</title></circle>",
                scale.place(value),
                show::number(value, self.figure),
                self.figure.unit()
            )
        };
        self.readings.iter().map(dot).collect()
    }
}

/// From the least to the greatest, a cross line at the median.
fn whisker(scale: Scale, spread: Spread) -> String {
    let [min, median, max] = [spread.min, spread.median, spread.max].map(|value| scale.place(value));
    format!(
        "<line x1=\"{min:.2}%\" x2=\"{max:.2}%\" y1=\"11\" y2=\"11\"/>\
         <line x1=\"{median:.2}%\" x2=\"{median:.2}%\" y1=\"3\" y2=\"19\"/>"
    )
}

/// The axis below rows of `figure`.
pub fn axis(scale: Scale, figure: Figure) -> String {
    let tick = |value: f64| {
        let place = scale.place(value);
        // Beyond the edges text would be cut off.
        let anchor = match place {
            ..8.0 => "start",
            92.0.. => "end",
            _ => "middle",
        };
        format!(
            "<line x1=\"{place:.2}%\" x2=\"{place:.2}%\" y1=\"0\" y2=\"5\"/>\
             <text x=\"{place:.2}%\" y=\"17\" text-anchor=\"{anchor}\">{}</text>",
            show::number(value, figure)
        )
    };
    let ticks: String = scale.ticks().into_iter().map(tick).collect();
    format!(
        "<div class=\"row\"><span class=\"name\"></span><svg class=\"axis\" aria-hidden=\"true\">\
         <line x1=\"0\" x2=\"100%\" y1=\"0.5\" y2=\"0.5\"/>{ticks}</svg><span class=\"value\">{}</span></div>\n",
        figure.unit()
    )
}
