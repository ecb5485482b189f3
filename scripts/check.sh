#!/usr/bin/env bash
# What must hold before tests are worth running: format, lints, dependencies, documentation.
. "$(dirname "$0")/lib.sh"
need_cargo

cargo fmt --all --check
cargo clippy --locked --workspace --all-targets -- -D warnings
# The advisory database is not a package of any registry, so advisories are left to those who have it.
PATH=$VENV/bin:$PATH cargo deny --locked check bans licenses sources
RUSTDOCFLAGS="-D warnings" cargo doc --locked --workspace --no-deps --document-private-items --quiet

cargo fmt --manifest-path native/allreduce-mpi/Cargo.toml --check
MPICC=$MPI_PREFIXES/mpich/bin/mpicc CARGO_TARGET_DIR=$ROOT/target/allreduce-mpi/mpich \
    cargo clippy --locked --release --manifest-path native/allreduce-mpi/Cargo.toml --all-targets -- -D warnings
(cd native/allreduce-mpi && PATH=$VENV/bin:$PATH cargo deny --locked --config ../../deny.toml check bans licenses sources)
say "all checks passed"
