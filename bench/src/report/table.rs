//! A table in Markdown, and how figures are written in it.

/// Rows of cells under a header; the first column is text, the others are figures.
pub(super) struct Table {
    header: Vec<String>,
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(super) fn new<S: Into<String>>(header: impl IntoIterator<Item = S>) -> Self {
        Self { header: header.into_iter().map(Into::into).collect(), rows: Vec::new() }
    }

    pub(super) fn row(&mut self, cells: Vec<String>) {
        self.rows.push(cells);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    pub(super) fn text(&self) -> String {
        let mut text = line(&self.header);
        text += &format!("|---|{}\n", "---:|".repeat(self.header.len() - 1));
        for row in &self.rows {
            text += &line(row);
        }
        text
    }
}

fn line(cells: &[String]) -> String {
    format!("| {} |\n", cells.join(" | "))
}

/// Seconds, with as many digits as mean something.
pub(super) fn seconds(value: f64) -> String {
    match value {
        value if value < 1.0 => format!("{value:.3}"),
        value if value < 100.0 => format!("{value:.2}"),
        _ => format!("{value:.0}"),
    }
}

/// Bytes as MiB.
pub(super) fn mebibytes(bytes: f64) -> String {
    let value = bytes / f64::from(1 << 20);
    if value < 10.0 { format!("{value:.2}") } else { format!("{value:.0}") }
}

/// How many times one is the other.
pub(super) fn times(value: f64) -> String {
    if value < 10.0 { format!("{value:.1}×") } else { format!("{value:.0}×") }
}

/// A number with commas.
pub(super) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A figure, or a dash.
pub(super) fn cell(value: Option<f64>, write: impl Fn(f64) -> String) -> String {
    value.map_or_else(|| "–".to_owned(), write)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_commas_every_three_digits() {
        assert_eq!([grouped(1), grouped(1234), grouped(1_000_000)], ["1", "1,234", "1,000,000"]);
    }
}
