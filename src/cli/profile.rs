//! Where the time of many steps went, launch by launch, as a table on stderr.

use thalweg::runtime::ProfileRow;

/// Prints where `seconds` went, longest first.
pub(crate) fn print(rows: &[ProfileRow], seconds: f64) {
    let inside: f64 = rows.iter().map(|r| r.total.as_secs_f64()).sum();
    eprintln!("{:>9}  {:>6}  {:>5}  launch", "µs / run", "share", "runs");
    // One device needs no name.
    let several = rows.iter().any(|row| row.device != rows[0].device);
    for row in rows {
        let device = if several { format!("{}: ", row.device) } else { String::new() };
        let (total, mean) = (row.total.as_secs_f64(), 1e6 * row.total.as_secs_f64() / row.runs as f64);
        let what = format!("{device}{} [{}]", row.label, row.strategy);
        eprintln!("{mean:9.1}  {:5.1}%  {:5}  {what}", 100.0 * total / seconds, row.runs);
    }
    eprintln!("{:.1} % of {seconds:.2} s in launches", 100.0 * inside / seconds);
}
