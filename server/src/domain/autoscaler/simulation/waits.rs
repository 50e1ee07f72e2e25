//! How long requests waited, as a histogram whose bars are one hundredth wide.

/// Ratio of the ends of a bar.
const WIDTH: f64 = 1.01;

/// Waiting times in microseconds, weighted by requests.
#[derive(Clone, Debug, Default)]
pub(super) struct Waits {
    bars: Vec<f64>,
    requests: f64,
    total_us: f64,
    longest_us: f64,
}

impl Waits {
    pub fn add(&mut self, requests: f64, wait_us: f64) {
        let bar = (1.0 + wait_us).log(WIDTH).round() as usize;
        if bar >= self.bars.len() {
            self.bars.resize(bar + 1, 0.0);
        }
        self.bars[bar] += requests;
        self.requests += requests;
        self.total_us += requests * wait_us;
        self.longest_us = self.longest_us.max(wait_us);
    }

    pub fn requests(&self) -> f64 {
        self.requests
    }

    /// The mean; `None` where there was no request.
    pub fn mean_us(&self) -> Option<f64> {
        (self.requests > 0.0).then(|| self.total_us / self.requests)
    }

    pub fn longest_us(&self) -> f64 {
        self.longest_us
    }

    /// The wait that this part of the requests did not exceed.
    pub fn quantile_us(&self, part: f64) -> f64 {
        let mut below = 0.0;
        let bar = self.bars.iter().position(|requests| {
            below += requests;
            below >= part * self.requests
        });
        bar.map_or(0.0, |bar| (WIDTH.powi(bar as i32) - 1.0).min(self.longest_us))
    }
}
