//! The command line, as nccl-tests has it.

/// What `--help` prints.
pub const HELP: &str = "\
usage: muster-allreduce-mpi [options]      (under an MPI launcher)

A checked MPI_Allreduce (float, sum, out-of-place) over a range of sizes.

  -b, --minbytes SIZE      smallest message (8); K, M and G are powers of 1024
  -e, --maxbytes SIZE      largest message (64M)
  -f, --stepfactor N       each size is N times the one before (2)
  -i, --stepbytes SIZE     each size is larger by SIZE instead
  -n, --iters N            timed operations per size (20)
  -w, --warmup_iters N     operations per size before the clock starts (5)
  -c, --check 0|1          check every element of the last result (1)
  -h, --help               this text

A time is the mean over the operations and over the ranks. algbw = size / time; busbw = algbw * 2(n-1)/n for n ranks;
1 GB/s is 10^9 bytes a second. Exit status: 0; 1 when a result was wrong; 64 for a usage error.
";

/// How sizes follow each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Multiplied by this.
    Factor(usize),
    /// Larger by these bytes.
    Bytes(usize),
}

/// What to measure.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// Smallest message in bytes.
    pub min_bytes: usize,
    /// Largest message in bytes.
    pub max_bytes: usize,
    /// The way from one to the other.
    pub step: Step,
    /// Timed operations per size.
    pub iterations: u32,
    /// Untimed operations per size.
    pub warmup: u32,
    /// Whether results are checked.
    pub check: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self { min_bytes: 8, max_bytes: 64 << 20, step: Step::Factor(2), iterations: 20, warmup: 5, check: true }
    }
}

impl Options {
    /// The message sizes in bytes, in order.
    pub fn sizes(&self) -> impl Iterator<Item = usize> {
        let (step, max) = (self.step, self.max_bytes);
        std::iter::successors(Some(self.min_bytes), move |size| match step {
            Step::Factor(factor) => size.checked_mul(factor),
            Step::Bytes(bytes) => size.checked_add(bytes),
        })
        .take_while(move |size| *size <= max)
    }
}

/// What the command line asks for.
#[derive(Debug, PartialEq, Eq)]
pub enum Parsed {
    /// A measurement.
    Run(Options),
    /// The help text.
    Help,
}

/// Parses the arguments after the program's name.
///
/// # Errors
/// With a message for the user.
pub fn parse(mut args: impl Iterator<Item = String>) -> Result<Parsed, String> {
    let mut options = Options::default();
    while let Some(arg) = args.next() {
        let (name, joined) = match arg.split_once('=') {
            Some((name, value)) if name.starts_with("--") => (name.to_owned(), Some(value.to_owned())),
            _ => (arg, None),
        };
        if matches!(name.as_str(), "-h" | "--help") {
            return Ok(Parsed::Help);
        }
        let mut value = || joined.clone().or_else(|| args.next()).ok_or_else(|| format!("{name} needs a value"));
        match name.as_str() {
            "-b" | "--minbytes" => options.min_bytes = size(&name, &value()?)?,
            "-e" | "--maxbytes" => options.max_bytes = size(&name, &value()?)?,
            "-f" | "--stepfactor" => options.step = Step::Factor(size(&name, &value()?)?),
            "-i" | "--stepbytes" => options.step = Step::Bytes(size(&name, &value()?)?),
            "-n" | "--iters" => options.iterations = number(&name, &value()?)?,
            "-w" | "--warmup_iters" => options.warmup = number(&name, &value()?)?,
            "-c" | "--check" => options.check = number(&name, &value()?)? != 0,
            _ => return Err(format!("unknown option {name}")),
        }
    }
    validate(&options)?;
    Ok(Parsed::Run(options))
}

fn validate(options: &Options) -> Result<(), String> {
    let most = usize::try_from(i32::MAX).unwrap_or(usize::MAX) * size_of::<f32>();
    if options.min_bytes < size_of::<f32>() || options.min_bytes > options.max_bytes {
        return Err(format!("sizes go from at least 4 bytes up, not {} to {}", options.min_bytes, options.max_bytes));
    }
    if options.max_bytes > most {
        return Err(format!("one MPI call takes at most {most} bytes of floats, not {}", options.max_bytes));
    }
    if matches!(options.step, Step::Factor(0 | 1) | Step::Bytes(0)) {
        return Err("the step must make sizes grow".to_owned());
    }
    if options.iterations == 0 {
        return Err("-n must be at least 1".to_owned());
    }
    Ok(())
}

fn number(name: &str, text: &str) -> Result<u32, String> {
    text.parse().map_err(|_| format!("{name} takes a whole number, not {text:?}"))
}

fn size(name: &str, text: &str) -> Result<usize, String> {
    let (digits, shift) = match text.char_indices().last() {
        Some((at, 'k' | 'K')) => (&text[..at], 10),
        Some((at, 'm' | 'M')) => (&text[..at], 20),
        Some((at, 'g' | 'G')) => (&text[..at], 30),
        _ => (text, 0),
    };
    let wrong = || format!("{name} takes a size such as 8, 64K or 1G, not {text:?}");
    let value: usize = digits.parse().map_err(|_| wrong())?;
    value.checked_mul(1 << shift).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(line: &str) -> Result<Parsed, String> {
        parse(line.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn options_of_nccl_tests_are_understood() {
        let wanted = Options {
            min_bytes: 1024,
            max_bytes: 1 << 30,
            step: Step::Factor(4),
            iterations: 10,
            warmup: 0,
            check: false,
        };
        assert_eq!(of("-b 1K -e 1G -f 4 -n 10 -w 0 -c 0"), Ok(Parsed::Run(wanted.clone())));
        let long = "--minbytes=1k --maxbytes 1g --stepfactor=4 --iters=10 --warmup_iters=0 --check=0";
        assert_eq!(of(long), Ok(Parsed::Run(wanted)));
        assert_eq!(of(""), Ok(Parsed::Run(Options::default())));
        assert_eq!(of("-b 8 --help"), Ok(Parsed::Help));
    }

    #[test]
    fn wrong_options_are_named() {
        for (line, part) in [
            ("-b", "-b needs a value"),
            ("-b 8X", "-b takes a size such as 8, 64K or 1G, not \"8X\""),
            ("-n many", "-n takes a whole number, not \"many\""),
            ("-q", "unknown option -q"),
            ("-b 1M -e 1K", "not 1048576 to 1024"),
            ("-f 1", "must make sizes grow"),
            ("-n 0", "at least 1"),
            ("-e 9G", "at most 8589934588 bytes"),
        ] {
            let message = of(line).expect_err(line);
            assert!(message.contains(part), "{line}: {message}");
        }
    }

    #[test]
    fn sizes_stay_in_their_range() {
        let sizes =
            |step| Options { min_bytes: 8, max_bytes: 40, step, ..Options::default() }.sizes().collect::<Vec<_>>();
        assert_eq!(sizes(Step::Factor(2)), [8, 16, 32]);
        assert_eq!(sizes(Step::Bytes(16)), [8, 24, 40]);
    }
}
