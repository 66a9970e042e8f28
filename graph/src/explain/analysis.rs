//! Predicted beside measured. Errors are relative to what was measured and weighted by it: a launch that takes a tenth of the
//! step counts for a tenth. What counts is the shortest of all steps, launch by launch, as it is for the rates: whatever else
//! the machine does only makes it longer.

use serde::Serialize;

use super::Explanation;

/// Launches that take less than this, in seconds, are mostly the clock's.
const WORTH: f64 = 20e-6;

/// How far the prediction was from what steps really took.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Analysis {
    /// Steps that were measured.
    pub steps: usize,
    /// What one took: the shortest.
    pub step_seconds: f64,
    /// By how much the predicted step is longer, relative to that.
    pub step_error: f64,
    /// Launches that took 20 µs or more.
    pub launches: usize,
    /// The median of their errors without sign, each weighted by its time.
    pub median_error: f64,
}

/// What was measured does not fit the plan.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{device} timed {found} launches and copies in a step; its plan has {expected}")]
pub struct OtherPlan {
    /// The device.
    pub device: String,
    /// How many were timed.
    pub found: usize,
    /// How many there are.
    pub expected: usize,
}

impl Explanation {
    /// Notes what steps took. For each of them, the whole, and by device what its launches and copies took, in order.
    ///
    /// # Errors
    /// If there are more or fewer of them than in the plan.
    pub fn compare(&mut self, steps: &[(f64, Vec<Vec<f64>>)]) -> Result<Analysis, OtherPlan> {
        for d in 0..self.devices.len() {
            let rows: Vec<usize> =
                (0..self.launches.len()).filter(|l| usize::from(self.launches[*l].device) == d).collect();
            for (_, devices) in steps {
                let found = devices.get(d).map_or(0, Vec::len);
                if found != rows.len() {
                    let device = self.devices[d].device.to_string();
                    return Err(OtherPlan { device, found, expected: rows.len() });
                }
            }
            for (k, row) in rows.into_iter().enumerate() {
                self.launches[row].measured_seconds = shortest(steps.iter().map(|(_, devices)| devices[d][k]));
            }
        }
        let mut errors: Vec<(f64, f64)> = self
            .launches
            .iter()
            .filter_map(|l| Some((l.seconds, l.measured_seconds.filter(|m| *m >= WORTH)?)))
            .map(|(predicted, measured)| ((predicted / measured - 1.0).abs(), measured))
            .collect();
        errors.sort_by(|a, b| a.0.total_cmp(&b.0));
        let half = errors.iter().map(|e| e.1).sum::<f64>() / 2.0;
        let mut seen = 0.0;
        let middle = errors.iter().find(|(_, weight)| {
            seen += weight;
            seen >= half
        });
        let step_seconds = shortest(steps.iter().map(|s| s.0)).unwrap_or(f64::NAN);
        let analysis = Analysis {
            steps: steps.len(),
            step_seconds,
            step_error: self.step_seconds / step_seconds - 1.0,
            launches: errors.len(),
            median_error: middle.map_or(0.0, |e| e.0),
        };
        self.analysis = Some(analysis);
        Ok(analysis)
    }
}

fn shortest(all: impl Iterator<Item = f64>) -> Option<f64> {
    all.min_by(f64::total_cmp)
}
