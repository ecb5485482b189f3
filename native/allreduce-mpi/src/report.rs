//! The report, in the layout of nccl-tests without its in-place half and its root column.

use std::io::{self, Write};

use crate::measure::Row;
use crate::options::{Options, Step};

/// Rates of one size, in GB/s (10⁹ bytes a second).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rates {
    /// Size over time.
    pub algbw: f64,
    /// What the busiest link must have carried: algbw × 2(n−1)/n.
    pub busbw: f64,
}

impl Rates {
    /// Rates of a row measured over that many ranks.
    pub fn of(row: &Row, ranks: usize) -> Self {
        let algbw = row.bytes as f64 / 1e9 / row.seconds;
        let n = ranks as f64;
        Self { algbw, busbw: algbw * 2.0 * (n - 1.0) / n }
    }
}

/// What stands above the table.
pub fn header(
    out: &mut impl Write,
    options: &Options,
    library: &str,
    hosts: &[String],
    init_seconds: f64,
) -> io::Result<()> {
    let step = match options.step {
        Step::Factor(factor) => format!("{factor}(factor)"),
        Step::Bytes(bytes) => format!("{bytes}(bytes)"),
    };
    writeln!(out, "# Collective test starting: muster-allreduce-mpi {}", env!("CARGO_PKG_VERSION"))?;
    writeln!(out, "# Library: {}", library.lines().next().unwrap_or("unknown").trim_end_matches('\0').trim())?;
    writeln!(
        out,
        "# minBytes {} maxBytes {} step: {step} warmup iters: {} iters: {} validation: {}",
        options.min_bytes,
        options.max_bytes,
        options.warmup,
        options.iterations,
        i32::from(options.check)
    )?;
    writeln!(out, "# MPI_Init: {:.1} ms on the slowest rank", init_seconds * 1e3)?;
    writeln!(out, "#\n# Using hosts")?;
    for (rank, host) in hosts.iter().enumerate() {
        writeln!(out, "#  Rank {rank:2} on {host}")?;
    }
    writeln!(out, "#\n# {:>60}", "out-of-place")?;
    let columns = "time   algbw   busbw  #wrong";
    writeln!(out, "# {:>10}  {:>12}  {:>8}  {:>6}     {columns}", "size", "count", "type", "redop")?;
    writeln!(out, "# {:>10}  {:>12}  {:>8}  {:>6}     (us)  (GB/s)  (GB/s)", "(B)", "(elements)", "", "")?;
    out.flush()
}

/// One line of the table.
pub fn row(out: &mut impl Write, row: &Row, rates: &Rates) -> io::Result<()> {
    let wrong = row.wrong.map_or_else(|| "N/A".to_owned(), |wrong| wrong.to_string());
    writeln!(
        out,
        "{:12}  {:12}  {:>8}  {:>6}  {:>7}  {:>6}  {:>6}  {wrong:>6}",
        row.bytes,
        row.count,
        "float",
        "sum",
        fit(row.seconds * 1e6, 7),
        fit(rates.algbw, 6),
        fit(rates.busbw, 6)
    )?;
    out.flush()
}

/// What stands below the table.
pub fn footer(out: &mut impl Write, wrong: u64, bandwidths: &[f64]) -> io::Result<()> {
    let verdict = if wrong == 0 { "OK" } else { "FAILED" };
    let mean = bandwidths.iter().sum::<f64>() / bandwidths.len().max(1) as f64;
    writeln!(out, "# Out of bounds values : {wrong} {verdict}")?;
    writeln!(out, "# Avg bus bandwidth    : {mean}\n#")?;
    writeln!(out, "# Collective test concluded: muster-allreduce-mpi")?;
    out.flush()
}

/// A number in that width: it gives up decimals first, then takes the exponent form.
fn fit(value: f64, width: usize) -> String {
    let plain = (0..=2).rev().map(|decimals| format!("{value:.decimals$}")).find(|text| text.len() <= width);
    plain.unwrap_or_else(|| format!("{value:.1e}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_follow_the_definitions() {
        let row = Row { bytes: 1_000_000_000, count: 250_000_000, seconds: 0.5, wrong: Some(0) };
        assert_eq!(Rates::of(&row, 8), Rates { algbw: 2.0, busbw: 3.5 });
        assert_eq!(Rates::of(&row, 1).busbw, 0.0);
    }

    #[test]
    fn a_row_keeps_the_columns_of_nccl_tests() {
        let mut out = Vec::new();
        let data = Row { bytes: 1024, count: 256, seconds: 38.27e-6, wrong: Some(0) };
        row(&mut out, &data, &Rates::of(&data, 8)).expect("a vector takes all");
        let wanted = "        1024           256     float     sum    38.27    0.03    0.05       0\n";
        assert_eq!(String::from_utf8(out).expect("text"), wanted);
    }

    #[test]
    fn numbers_fit_their_columns() {
        let fitted: Vec<_> = [1.234, 12345.67, 123_456.78, 1_234_567.0, 123_456_789.0].map(|v| fit(v, 7)).into();
        assert_eq!(fitted, ["1.23", "12345.7", "123457", "1234567", "1.2e8"]);
    }

    #[test]
    fn the_footer_says_what_was_wrong() {
        let text = |wrong| {
            let mut out = Vec::new();
            footer(&mut out, wrong, &[1.0, 2.0]).expect("a vector takes all");
            String::from_utf8(out).expect("text")
        };
        assert!(text(0).contains("# Out of bounds values : 0 OK\n# Avg bus bandwidth    : 1.5\n"));
        assert!(text(3).contains("# Out of bounds values : 3 FAILED\n"));
    }
}
