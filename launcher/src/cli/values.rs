//! Values of options: numbers, times, masks, addresses.

use std::net::SocketAddr;
use std::ops::RangeInclusive;

use muster_core::plan::{Bootstrap, LimitSpec, OnFailure, Placement, StdinTarget};
use muster_sys::limits::Resource;
use muster_worker_agent::listen::Listen;

use super::error::UsageError;
use super::options::LogLevel;
use super::scan::Setting;

/// The longest time that can be given: far over any job, and far under any overflow.
const TIME_MS_MAX: u64 = 1_000 * 86_400 * 366 * 100;

type Result<T> = std::result::Result<T, UsageError>;

/// A whole number in a range.
pub(super) fn number(setting: &Setting, range: RangeInclusive<u32>) -> Result<u32> {
    let plain = setting.value.bytes().all(|b| b.is_ascii_digit());
    match setting.value.parse::<u32>() {
        Ok(n) if plain && range.contains(&n) => Ok(n),
        _ if *range.end() == u32::MAX => Err(setting.bad(format!("is not a whole number from {} on", range.start()))),
        _ => Err(setting.bad(format!("is not a whole number from {} to {}", range.start(), range.end()))),
    }
}

/// A port.
pub(super) fn port(setting: &Setting) -> Result<u16> {
    number(setting, 1..=65_535).map(|n| n as u16)
}

/// On or off.
pub(super) fn switch(setting: &Setting) -> Result<bool> {
    match setting.value.to_ascii_lowercase().as_str() {
        "true" | "yes" | "on" | "1" => Ok(true),
        "false" | "no" | "off" | "0" => Ok(false),
        _ => Err(setting.bad("is neither true nor false")),
    }
}

/// A time in milliseconds: a number with `ms`, `s`, `m` or `h`; a plain number is seconds.
pub(super) fn time_ms(setting: &Setting) -> Result<u64> {
    let text = setting.value.trim();
    let wrong = || {
        setting.bad(
            "is not a time; write a number with ms, s, m or h, such as 500ms, 10s, 1.5m (a plain number is seconds)",
        )
    };
    let end = text.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(text.len());
    let (digits, unit) = text.split_at(end);
    let unit_ms: u64 = match unit.trim_start() {
        "ms" => 1,
        "" | "s" | "sec" => 1_000,
        "m" | "min" => 60_000,
        "h" => 3_600_000,
        _ => return Err(wrong()),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    if whole.is_empty() || fraction.len() > 6 || fraction.contains('.') || (digits.contains('.') && fraction.is_empty())
    {
        return Err(wrong());
    }
    let too_long = || setting.bad("is too long a time; a hundred years is the most");
    let whole = whole.parse::<u64>().map_err(|_| too_long())?.checked_mul(unit_ms).ok_or_else(too_long)?;
    let part = match fraction {
        "" => 0,
        digits => digits.parse::<u64>().map_err(|_| wrong())? * unit_ms / 10u64.pow(digits.len() as u32),
    };
    Some(whole + part).filter(|ms| *ms <= TIME_MS_MAX).ok_or_else(too_long)
}

/// A time that is not zero.
pub(super) fn some_time_ms(setting: &Setting) -> Result<u64> {
    match time_ms(setting)? {
        0 => Err(setting.bad("is no time at all; it must be more than 0")),
        ms => Ok(ms),
    }
}

/// A file mode mask, octal.
pub(super) fn umask(setting: &Setting) -> Result<u32> {
    match u32::from_str_radix(&setting.value, 8) {
        Ok(mask) if mask <= 0o777 && !setting.value.starts_with('+') => Ok(mask),
        _ => Err(setting.bad("is not a file mode mask; write it in octal, such as 022")),
    }
}

/// Resource limits, as `NAME=SOFT[:HARD]` with commas between.
pub(super) fn rlimits(setting: &Setting) -> Result<Vec<LimitSpec>> {
    let wrong = || {
        setting.bad("is not a list of limits; write NAME=SOFT or NAME=SOFT:HARD with commas between, such as nofile=65536,core=0:unlimited; names are as, core, cpu, data, fsize, memlock, nofile, nproc, stack")
    };
    let number = |text: &str| match text {
        "unlimited" => Ok(u64::MAX),
        digits => digits.parse::<u64>().map_err(|_| wrong()),
    };
    let one = |text: &str| {
        let (name, values) = text.trim().split_once('=').ok_or_else(wrong)?;
        let (soft, hard) = values.split_once(':').unwrap_or((values, values));
        let limit = LimitSpec { resource: name.to_owned(), soft: number(soft)?, hard: number(hard)? };
        let known = Resource::from_name(name).is_some();
        if known && limit.soft <= limit.hard { Ok(limit) } else { Err(wrong()) }
    };
    setting.value.split(',').map(one).collect()
}

/// The order in which ranks go to hosts.
pub(super) fn placement(setting: &Setting) -> Result<Placement> {
    match setting.value.as_str() {
        "block" => Ok(Placement::Block),
        "cyclic" => Ok(Placement::Cyclic),
        "seq" => Ok(Placement::Seq),
        _ => Err(setting.bad("is not an order of placement; there are block, cyclic and seq")),
    }
}

/// What the failure of a rank means for the others.
pub(super) fn on_failure(setting: &Setting) -> Result<OnFailure> {
    match setting.value.as_str() {
        "end" => Ok(OnFailure::End),
        "continue" => Ok(OnFailure::Continue),
        _ => Err(setting.bad("is neither end nor continue")),
    }
}

/// How ranks find each other.
pub(super) fn bootstrap(setting: &Setting) -> Result<Bootstrap> {
    match setting.value.as_str() {
        "auto" => Ok(Bootstrap::Auto),
        "pmi" => Ok(Bootstrap::Pmi),
        "pmix" => Ok(Bootstrap::Pmix),
        "none" => Ok(Bootstrap::None),
        "env" => Err(setting.bad("is not in this release; it has auto, pmi, pmix and none")),
        _ => Err(setting.bad("is not a bootstrap; there are auto, pmi, pmix and none")),
    }
}

/// Who reads standard input.
pub(super) fn stdin(setting: &Setting) -> Result<StdinTarget> {
    match setting.value.as_str() {
        "all" => Ok(StdinTarget::All),
        "none" => Ok(StdinTarget::None),
        text => match text.parse() {
            Ok(rank) if !text.starts_with('+') => Ok(StdinTarget::Rank(rank)),
            _ => Err(setting.bad("is not a rank; write a rank, all or none")),
        },
    }
}

/// How much Muster says about itself.
pub(super) fn log_level(setting: &Setting) -> Result<LogLevel> {
    match setting.value.as_str() {
        "error" => Ok(LogLevel::Error),
        "warn" => Ok(LogLevel::Warn),
        "info" => Ok(LogLevel::Info),
        "debug" => Ok(LogLevel::Debug),
        "trace" => Ok(LogLevel::Trace),
        _ => Err(setting.bad("is not a level; there are error, warn, info, debug and trace")),
    }
}

/// An address to listen at.
pub(super) fn listen(setting: &Setting) -> Result<SocketAddr> {
    let text = match setting.value.strip_prefix(':') {
        Some(port) => format!("0.0.0.0:{port}"),
        None => setting.value.clone(),
    };
    text.parse().map_err(|_| match setting.value.split(',').all(|part| part.trim().parse::<Listen>().is_ok()) {
        // What agents take under the same name.
        true => setting
            .bad("says no single port to listen at; write one IP:PORT, [IPV6]:PORT or :PORT, which agents take, too"),
        false => setting.bad("is not an address to listen at; write IP:PORT, [IPV6]:PORT or :PORT"),
    })
}

/// A name for a job: what fits into file names, variables and messages without quotes.
pub(super) fn job(setting: &Setting) -> Result<String> {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if setting.value.is_empty() || setting.value.len() > 128 || !setting.value.chars().all(fits) {
        return Err(setting.bad("is not a job name; use 1 to 128 letters, digits, '-', '_' and '.'"));
    }
    Ok(setting.value.clone())
}

/// Text that must not be empty, such as a path.
pub(super) fn text(setting: &Setting) -> Result<String> {
    if setting.value.is_empty() {
        return Err(setting.bad("is empty"));
    }
    Ok(setting.value.clone())
}

#[cfg(test)]
mod tests {
    use muster_core::hosts::Origin;

    use super::*;
    use crate::cli::table::{Id, by_id};

    fn setting(value: &str) -> Setting {
        Setting {
            opt: by_id(Id::Timeout),
            value: value.to_owned(),
            origin: Origin::flag("--timeout"),
            place: "--timeout".to_owned(),
        }
    }

    #[test]
    fn times() {
        for (text, ms) in [
            ("10", 10_000),
            ("0", 0),
            ("10s", 10_000),
            ("500ms", 500),
            ("5m", 300_000),
            ("1.5m", 90_000),
            ("0.25s", 250),
            ("2h", 7_200_000),
            (" 3 s", 3_000),
        ] {
            assert_eq!(time_ms(&setting(text)), Ok(ms), "{text}");
        }
        for text in ["", "s", "-1", "+1", "5x", "1.", ".5", "1.2.3", "1e3", "99999999999999999999", "9999999h", "1d"] {
            assert!(time_ms(&setting(text)).is_err(), "{text}");
        }
        assert!(some_time_ms(&setting("0ms")).is_err());
    }

    #[test]
    fn other_values() {
        assert_eq!(umask(&setting("022")), Ok(0o22));
        assert!(umask(&setting("888")).is_err() && umask(&setting("1777")).is_err() && umask(&setting("+22")).is_err());
        assert_eq!(stdin(&setting("3")), Ok(StdinTarget::Rank(3)));
        assert_eq!(stdin(&setting("all")), Ok(StdinTarget::All));
        assert!(stdin(&setting("+3")).is_err() && stdin(&setting("some")).is_err());
        assert_eq!(listen(&setting(":7000")), Ok("0.0.0.0:7000".parse().unwrap()));
        assert_eq!(listen(&setting("[::1]:7000")), Ok("[::1]:7000".parse().unwrap()));
        let refused = |text| listen(&setting(text)).unwrap_err().to_string();
        insta::assert_snapshot!(refused("7000"), @r#"--timeout: "7000" is not an address to listen at; write IP:PORT, [IPV6]:PORT or :PORT"#);
        insta::assert_snapshot!(refused("10.0.0.1"), @r#"--timeout: "10.0.0.1" says no single port to listen at; write one IP:PORT, [IPV6]:PORT or :PORT, which agents take, too"#);
        assert_eq!(refused("10.0.0.1:7,10.0.0.2:7").replace("10.0.0.1:7,10.0.0.2:7", "10.0.0.1"), refused("10.0.0.1"));
        assert_eq!(number(&setting("7"), 1..=8), Ok(7));
        assert!(number(&setting("+7"), 1..=8).is_err() && number(&setting("9"), 1..=8).is_err());
        assert!(job(&setting("a b")).is_err() && job(&setting("a-b_c.9")).is_ok());
        assert_eq!(switch(&setting("Yes")), Ok(true));
        assert!(switch(&setting("2")).is_err());
    }
}
