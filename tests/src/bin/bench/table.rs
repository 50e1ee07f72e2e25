//! What is printed at the end.

use std::fmt;

/// Lines of figures under what is known of the machine.
pub struct Table {
    machine: String,
    lines: Vec<[String; 4]>,
}

impl Table {
    /// Returns a table without figures.
    pub fn new(machine: &str) -> Self {
        Self { machine: machine.to_owned(), lines: Vec::new() }
    }

    /// Adds a line: what was measured, its figure, the figure that it is measured by, and what to think of both.
    pub fn add(&mut self, what: &str, figure: &str, beside: &str, remark: &str) {
        self.lines.push([what, figure, beside, remark].map(str::to_owned));
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}\n", self.machine)?;
        let width = |column: usize| {
            self.lines.iter().map(|line| line[column].chars().count()).max().unwrap_or_default()
        };
        let widths = [width(0), width(1), width(2)];
        for [what, figure, beside, remark] in &self.lines {
            let line =
                format!("{what:0$}  {figure:>1$}  {beside:2$}  {remark}", widths[0], widths[1], widths[2]);
            writeln!(f, "{}", line.trim_end())?;
        }
        Ok(())
    }
}
