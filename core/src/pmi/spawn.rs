//! `MPI_Comm_spawn` and `MPI_Comm_spawn_multiple` as clients send them.

use bytes::Bytes;
use muster_protocol::limits::{PMI_KEY_BYTES_MAX, PMI_VALUE_BYTES_MAX, PROCS_MAX};

use super::wire::{Dialect, Message, shown};

/// A new process group to start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpawnRequest {
    /// What to start, in the order of ranks. A process's appnum is the index of its segment.
    pub segments: Vec<SpawnSegment>,
    /// Key-values that the new group can read before its first fence.
    pub preput: Vec<(Bytes, Bytes)>,
}

/// One program of a spawn.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpawnSegment {
    /// Path or name of the program.
    pub program: String,
    /// Its arguments, the program's name not among them.
    pub args: Vec<String>,
    /// How many processes to start.
    pub maxprocs: u32,
    /// Hints; `wdir`, `path`, `host`, `hosts` and `hostfile` are the ones hydra honours.
    pub info: Vec<(String, String)>,
}

/// Why a spawn request is refused. The rank is told and lives on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SpawnError {
    /// A field is missing or is no number.
    #[error("spawn segment {segment}: {field} is missing or malformed")]
    Field {
        /// Index of the segment.
        segment: usize,
        /// The field.
        field: &'static str,
    },
    /// Fewer or more numbered fields than announced.
    #[error("spawn segment {segment}: {announced} of {field} announced, {got} found")]
    Count {
        /// Index of the segment.
        segment: usize,
        /// The numbered field.
        field: &'static str,
        /// How many should be there.
        announced: usize,
        /// How many are there.
        got: usize,
    },
    /// A value is not text.
    #[error("spawn segment {segment}: {field} is not UTF-8: {value:?}")]
    NotText {
        /// Index of the segment.
        segment: usize,
        /// The field.
        field: &'static str,
        /// What came, cut short.
        value: String,
    },
    /// More processes than a job may have.
    #[error("spawn of more than {PROCS_MAX} processes")]
    TooManyProcs,
    /// Another number of segments than announced.
    #[error("spawn announced {announced} segments and has {got}")]
    Segments {
        /// How many should be there.
        announced: usize,
        /// How many are there.
        got: usize,
    },
    /// A pair for the new group's key-value space does not fit.
    #[error(
        "spawn hands over a key of {key} bytes with a value of {value}, at most {PMI_KEY_BYTES_MAX} and {PMI_VALUE_BYTES_MAX}"
    )]
    Preput {
        /// Length of the key.
        key: usize,
        /// Length of the value.
        value: usize,
    },
}

type Pairs = [(Bytes, Bytes)];

/// The names that the two dialects give to the same things.
struct Words {
    program: &'static str,
    maxprocs: &'static str,
    argc: &'static str,
    arg: &'static str,
    info_count: &'static str,
    info_key: &'static str,
    info_value: &'static str,
    preput_count: &'static str,
    preput_key: &'static str,
    preput_value: &'static str,
}

const V1: Words = Words {
    program: "execname",
    maxprocs: "nprocs",
    argc: "argcnt",
    arg: "arg",
    info_count: "info_num",
    info_key: "info_key_",
    info_value: "info_val_",
    preput_count: "preput_num",
    preput_key: "preput_key_",
    preput_value: "preput_val_",
};

const V2: Words = Words {
    program: "subcmd",
    maxprocs: "maxprocs",
    argc: "argc",
    arg: "argv",
    info_count: "infokeycount",
    info_key: "infokey",
    info_value: "infoval",
    preput_count: "preputcount",
    preput_key: "ppkey",
    preput_value: "ppval",
};

impl SpawnRequest {
    /// Reads a spawn message of either dialect.
    pub fn parse(message: &Message) -> Result<Self, SpawnError> {
        match message.dialect {
            Dialect::V1 => Self::v1(message),
            Dialect::V2 => Self::v2(message.fields.pairs()),
        }
    }

    /// Number of processes of all segments.
    pub fn procs(&self) -> u32 {
        self.segments.iter().map(|s| s.maxprocs).sum()
    }

    fn v1(message: &Message) -> Result<Self, SpawnError> {
        let preput = preput(&V1, message.fields.pairs())?;
        let blocks = std::iter::once(&message.fields).chain(&message.more).map(|fields| fields.pairs());
        Self::checked(blocks.enumerate().map(|(i, pairs)| segment(&V1, i, pairs)).collect::<Result<_, _>>()?, preput)
    }

    /// One message holds all segments; each begins with its `subcmd`.
    fn v2(pairs: &Pairs) -> Result<Self, SpawnError> {
        let starts: Vec<usize> =
            pairs.iter().enumerate().filter(|(_, (key, _))| key == V2.program).map(|(at, _)| at).collect();
        let head = &pairs[..starts.first().copied().unwrap_or(pairs.len())];
        let announced = number(head, "ncmds").ok_or(SpawnError::Field { segment: 0, field: "ncmds" })?;
        if announced == 0 || announced != starts.len() {
            return Err(SpawnError::Segments { announced, got: starts.len() });
        }
        let ends = starts.iter().copied().skip(1).chain([pairs.len()]);
        let segments =
            starts.iter().zip(ends).enumerate().map(|(i, (start, end))| segment(&V2, i, &pairs[*start..end]));
        Self::checked(segments.collect::<Result<_, _>>()?, preput(&V2, head)?)
    }

    fn checked(segments: Vec<SpawnSegment>, preput: Vec<(Bytes, Bytes)>) -> Result<Self, SpawnError> {
        let total: u64 = segments.iter().map(|s| u64::from(s.maxprocs)).sum();
        if total > u64::from(PROCS_MAX) {
            return Err(SpawnError::TooManyProcs);
        }
        Ok(Self { segments, preput })
    }
}

fn find<'a>(pairs: &'a Pairs, key: &str) -> Option<&'a Bytes> {
    pairs.iter().find(|(k, _)| k == key).map(|(_, v)| v)
}

fn number<N: std::str::FromStr>(pairs: &Pairs, key: &str) -> Option<N> {
    std::str::from_utf8(find(pairs, key)?).ok()?.trim().parse().ok()
}

fn text(segment: usize, field: &'static str, value: &Bytes) -> Result<String, SpawnError> {
    let not_text = |_| SpawnError::NotText { segment, field, value: shown(value) };
    std::str::from_utf8(value).map(str::to_owned).map_err(not_text)
}

fn segment(words: &Words, segment: usize, pairs: &Pairs) -> Result<SpawnSegment, SpawnError> {
    let missing = |field| SpawnError::Field { segment, field };
    let program = find(pairs, words.program).filter(|p| !p.is_empty()).ok_or(missing(words.program))?;
    let maxprocs = number(pairs, words.maxprocs).filter(|n| *n > 0).ok_or(missing(words.maxprocs))?;
    let args = numbered(segment, pairs, words.arg, words.argc)?;
    let keys = numbered(segment, pairs, words.info_key, words.info_count)?;
    let values = numbered(segment, pairs, words.info_value, words.info_count)?;
    Ok(SpawnSegment {
        program: text(segment, words.program, program)?,
        args: args.iter().map(|a| text(segment, words.arg, a)).collect::<Result<_, _>>()?,
        maxprocs,
        info: keys
            .iter()
            .zip(&values)
            .map(|(k, v)| Ok((text(segment, words.info_key, k)?, text(segment, words.info_value, v)?)))
            .collect::<Result<_, _>>()?,
    })
}

/// Pairs for the new group; only the first block carries them.
fn preput(words: &Words, pairs: &Pairs) -> Result<Vec<(Bytes, Bytes)>, SpawnError> {
    let keys = numbered(0, pairs, words.preput_key, words.preput_count)?;
    let values = numbered(0, pairs, words.preput_value, words.preput_count)?;
    for (key, value) in keys.iter().zip(&values) {
        if key.is_empty() || key.len() > PMI_KEY_BYTES_MAX || value.len() > PMI_VALUE_BYTES_MAX {
            return Err(SpawnError::Preput { key: key.len(), value: value.len() });
        }
    }
    let own = Bytes::copy_from_slice;
    Ok(keys.iter().zip(&values).map(|(k, v)| (own(k), own(v))).collect())
}

/// The values of `prefix0`, `prefix1`, … in the order of their numbers. Clients count arguments from 1 in PMI-1 and from 0 in
/// PMI-2, and the specifications say otherwise, so the first number may be either.
fn numbered(
    segment: usize,
    pairs: &Pairs,
    prefix: &'static str,
    count: &'static str,
) -> Result<Vec<Bytes>, SpawnError> {
    let mut found: Vec<(u32, &Bytes)> = pairs
        .iter()
        .filter_map(|(key, value)| {
            let digits = key.strip_prefix(prefix.as_bytes())?;
            let plain = digits.iter().all(u8::is_ascii_digit);
            let index = std::str::from_utf8(digits).ok()?.parse().ok()?;
            plain.then_some((index, value))
        })
        .collect();
    found.sort_by_key(|(index, _)| *index);
    let announced = match find(pairs, count) {
        Some(_) => number(pairs, count).ok_or(SpawnError::Field { segment, field: count })?,
        None => 0,
    };
    let base = found.first().map_or(0, |(index, _)| *index);
    let in_order = base <= 1 && found.iter().enumerate().all(|(i, (index, _))| *index as usize == base as usize + i);
    if announced != found.len() {
        return Err(SpawnError::Count { segment, field: prefix, announced, got: found.len() });
    }
    if !in_order {
        return Err(SpawnError::Field { segment, field: prefix });
    }
    Ok(found.into_iter().map(|(_, value)| value.clone()).collect())
}
