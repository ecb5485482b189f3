#![forbid(unsafe_code)]
//! `muster-allreduce-mpi`: every rank contributes known numbers, the sum is checked and timed over a range of sizes.
//!
//! The options and the table are those of nccl-tests' `all_reduce_perf`, so that the same eyes and scripts can read
//! them. Differences: only out-of-place is measured, `root` is left out, and the library is MPI.

mod measure;
mod options;
mod report;

use std::io::{self, Write};
use std::process::ExitCode;
use std::time::Instant;

use mpi::collective::SystemOperation;
use mpi::topology::SimpleCommunicator;
use mpi::traits::{Communicator, CommunicatorCollectives, Root};

use options::{Options, Parsed};

/// Room for a host name in the header's gather; longer ones are cut.
const HOST_BYTES: usize = 64;
/// Exit status of a usage error, as `sysexits.h` has it.
const USAGE: u8 = 64;

fn main() -> ExitCode {
    let options = match options::parse(std::env::args().skip(1)) {
        Ok(Parsed::Run(options)) => options,
        Ok(Parsed::Help) => return finish(io::stdout().write_all(options::HELP.as_bytes()), 0),
        Err(message) => {
            // Where standard error is gone, the exit status still tells.
            let _ = writeln!(io::stderr(), "muster-allreduce-mpi: {message}; --help lists the options");
            return ExitCode::from(USAGE);
        }
    };
    let begun = Instant::now();
    let Some(universe) = mpi::initialize() else {
        let _ = writeln!(io::stderr(), "muster-allreduce-mpi: MPI was already initialised");
        return ExitCode::FAILURE;
    };
    let init_seconds = begun.elapsed().as_secs_f64();
    let result = run(&universe.world(), &options, init_seconds);
    // MPI_Finalize, before the status is decided.
    drop(universe);
    match result {
        Ok(0) => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => finish(Err(error), 1),
    }
}

fn finish(result: io::Result<()>, otherwise: u8) -> ExitCode {
    match result {
        Ok(()) => ExitCode::from(otherwise),
        Err(error) => {
            let _ = writeln!(io::stderr(), "muster-allreduce-mpi: cannot write the report: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Measures all sizes and returns how many elements were wrong, over all ranks and sizes.
fn run(world: &SimpleCommunicator, options: &Options, init_seconds: f64) -> io::Result<u64> {
    let ranks = usize::try_from(world.size()).unwrap_or(1);
    let hosts = gather_hosts(world, ranks);
    let init_slowest = slowest(world, init_seconds);
    // Only rank 0 reports; the others keep step with it.
    let mut out = (world.rank() == 0).then(io::stdout);
    if let Some(out) = &mut out {
        let library = mpi::environment::library_version().unwrap_or_else(|_| "unknown".to_owned());
        report::header(out, options, &library, &hosts, init_slowest)?;
    }
    let mut buffers = measure::Buffers::new(world, options.max_bytes);
    let (mut wrong, mut bandwidths) = (0, Vec::new());
    for bytes in options.sizes() {
        let row = measure::size(world, &mut buffers, bytes, options);
        let rates = report::Rates::of(&row, ranks);
        wrong += row.wrong.unwrap_or(0);
        bandwidths.push(rates.busbw);
        if let Some(out) = &mut out {
            report::row(out, &row, &rates)?;
        }
    }
    if let Some(out) = &mut out {
        report::footer(out, wrong, &bandwidths)?;
    }
    Ok(wrong)
}

/// The largest of all ranks' values, on rank 0; elsewhere the rank's own.
fn slowest(world: &SimpleCommunicator, mine: f64) -> f64 {
    let mut most = mine;
    world.all_reduce_into(&mine, &mut most, SystemOperation::max());
    most
}

/// Every rank's host name, on rank 0; elsewhere empty.
fn gather_hosts(world: &SimpleCommunicator, ranks: usize) -> Vec<String> {
    let name = mpi::environment::processor_name().unwrap_or_else(|_| "unknown".to_owned());
    let mut mine = [0u8; HOST_BYTES];
    let length = name.len().min(HOST_BYTES);
    mine[..length].copy_from_slice(&name.as_bytes()[..length]);
    let root = world.process_at_rank(0);
    if world.rank() != 0 {
        root.gather_into(&mine[..]);
        return Vec::new();
    }
    let mut all = vec![0u8; HOST_BYTES * ranks];
    root.gather_into_root(&mine[..], &mut all[..]);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim_end_matches('\0').to_owned();
    all.chunks(HOST_BYTES).map(text).collect()
}
