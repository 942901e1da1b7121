//! Horizontal bars.

use plotters::prelude::{DrawingArea, IntoDrawingArea, IntoFont, RGBColor, Rectangle, SVGBackend, Text, WHITE};
use plotters::style::Color;
use plotters::style::text_anchor::{HPos, Pos, VPos};

pub struct Chart {
    pub title: &'static str,
    pub groups: Vec<Group>,
}

/// Bars with one scale.
pub struct Group {
    pub title: String,
    pub bars: Vec<Bar>,
}

/// One case: a bar for each of its values, one below the other.
pub struct Bar {
    pub label: String,
    pub shade: Shade,
    /// How long, and what is written at the end.
    pub values: Vec<(f64, String)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shade {
    Ours,
    /// What all are compared with.
    Reference,
    Other,
}

impl Bar {
    pub fn one(label: &str, shade: Shade, value: f64, text: String) -> Self {
        Self {
            label: label.into(),
            shade,
            values: vec![(value, text)],
        }
    }
}

impl Shade {
    fn colour(self) -> RGBColor {
        match self {
            Self::Ours => RGBColor(0x1b, 0x6f, 0xb5),
            Self::Reference => RGBColor(0x8c, 0x8c, 0x8c),
            Self::Other => RGBColor(0xd9, 0x8e, 0x3b),
        }
    }
}

const WIDTH: i32 = 960;
const MARGIN: i32 = 20;
/// Where bars begin; labels end a little before.
const AXIS: i32 = 340;
/// As long as a bar can be; what is written at its end comes after.
const LONGEST: f64 = 480.0;
const TITLE: i32 = 44;
const HEADING: i32 = 34;
const THICK: i32 = 16;
const GAP: i32 = 7;
const INK: RGBColor = RGBColor(0x22, 0x22, 0x22);

type Area<'a> = DrawingArea<SVGBackend<'a>, plotters::coord::Shift>;

/// The SVG.
pub fn draw(chart: &Chart) -> Result<String, String> {
    let mut svg = String::new();
    let height = chart
        .groups
        .iter()
        .map(|group| HEADING + group.bars.iter().map(height_of).sum::<i32>())
        .sum::<i32>();
    let size = (WIDTH as u32, (TITLE + height + MARGIN) as u32);
    let area = SVGBackend::with_string(&mut svg, size).into_drawing_area();
    put(&area, chart).map_err(|error| error.to_string())?;
    drop(area);
    Ok(svg)
}

fn height_of(bar: &Bar) -> i32 {
    bar.values.len() as i32 * THICK + GAP
}

fn put(area: &Area<'_>, chart: &Chart) -> Result<(), Box<dyn std::error::Error>> {
    area.fill(&WHITE)?;
    text(area, chart.title, (MARGIN, TITLE / 2), HPos::Left, 22.0)?;
    let mut top = TITLE;
    for group in &chart.groups {
        text(area, &group.title, (MARGIN, top + HEADING / 2), HPos::Left, 17.0)?;
        top += HEADING;
        let values = group.bars.iter().flat_map(|bar| &bar.values);
        let longest = values.map(|(value, _)| *value).fold(f64::MIN_POSITIVE, f64::max);
        for bar in &group.bars {
            bar_at(area, bar, top, LONGEST / longest)?;
            top += height_of(bar);
        }
    }
    area.present()?;
    Ok(())
}

fn bar_at(area: &Area<'_>, bar: &Bar, top: i32, scale: f64) -> Result<(), Box<dyn std::error::Error>> {
    let thick = bar.values.len() as i32 * THICK;
    text(area, &bar.label, (AXIS - 8, top + thick / 2), HPos::Right, 16.0)?;
    for (place, (value, said)) in bar.values.iter().enumerate() {
        let upper = top + place as i32 * THICK;
        let end = AXIS + (value * scale).round() as i32;
        // The later ones are what is looked at.
        let colour = bar
            .shade
            .colour()
            .mix(if place + 1 < bar.values.len() { 0.55 } else { 1.0 });
        let corners = [(AXIS, upper), (end, upper + THICK - 1)];
        area.draw(&Rectangle::new(corners, colour.filled()))?;
        text(area, said, (end + 6, upper + THICK / 2), HPos::Left, 15.0)?;
    }
    Ok(())
}

fn text(area: &Area<'_>, text: &str, at: (i32, i32), side: HPos, size: f64) -> Result<(), Box<dyn std::error::Error>> {
    let style = ("sans-serif", size)
        .into_font()
        .color(&INK)
        .pos(Pos::new(side, VPos::Center));
    area.draw(&Text::new(text.to_owned(), at, style))?;
    Ok(())
}
