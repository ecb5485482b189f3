#!/usr/bin/env bash
# Installs what only tests need, builds the C programs of the end-to-end tests and runs every test of the workspace. Arguments go to the runner.
. "$(dirname "$0")/lib.sh"
need_cargo

scripts/setup.sh test
scripts/build-tests.sh
[ "$(id -u)" = 0 ] || say "not root: tests that need a cluster of namespaces will say so and be skipped"
allreduce_tests() { # NAME MPICC LIBRARIES
    MPICC=$2 CARGO_TARGET_DIR=$ROOT/target/allreduce-mpi/$1 LD_LIBRARY_PATH=$3 \
        cargo test --locked --release --quiet --manifest-path native/allreduce-mpi/Cargo.toml
}
allreduce_tests mpich "$MPI_PREFIXES/mpich/bin/mpicc" "$MPI_PREFIXES/mpich/lib"
allreduce_tests openmpi mpicc.openmpi ""
if command -v cargo-nextest >/dev/null; then
    cargo nextest run --locked --workspace "$@"
else
    say "cargo-nextest is not installed: cargo test runs one test binary after the other"
    cargo test --locked --workspace "$@"
fi
