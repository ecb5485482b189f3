#!/usr/bin/env bash
# Builds what a user installs into dist/: static `muster` and `muster-agent`, and the dynamic programs beside them.
. "$(dirname "$0")/lib.sh"
need_cargo

TARGET=$(host_triple)
BIN=$ROOT/dist/bin
mkdir -p "$BIN" "$ROOT/dist/lib"

# An explicit --target keeps +crt-static away from build scripts and procedural macros, which must be dynamic.
build_static() {
    local var=CARGO_TARGET_${TARGET^^}_RUSTFLAGS
    var=${var//-/_}
    # Packed relocations: the same addresses in a quarter of a megabyte less. A linker that does not know them says so and goes on.
    env "$var=-C target-feature=+crt-static -C link-arg=-Wl,-z,pack-relative-relocs" cargo build --locked --release --target "$TARGET" --bins \
        -p muster-launcher -p muster-worker-agent
}

# A dynamic agent works here and fails in the images it is copied into, so it must not leave this script.
assert_static() {
    local interpreter
    interpreter=$(readelf -lW "$1" | grep -c 'INTERP' || true)
    [ "$interpreter" = 0 ] || die "$1 is not static: it names a program interpreter"
}

# The binding's build script does not notice another MPICC: one target folder per MPI keeps them apart.
build_allreduce() { # NAME MPICC BINARY
    command -v "$2" >/dev/null || { say "$2 is missing: $3 is not built (scripts/setup.sh installs it)"; return; }
    MPICC=$2 CARGO_TARGET_DIR=$ROOT/target/allreduce-mpi/$1 \
        cargo build --locked --release --manifest-path native/allreduce-mpi/Cargo.toml
    install_changed "$ROOT/target/allreduce-mpi/$1/release/muster-allreduce-mpi" "$BIN/$3"
}

build_static
for program in muster muster-agent; do
    built=$ROOT/target/$TARGET/release/$program
    assert_static "$built"
    install_changed "$built" "$BIN/$program"
done
# One file, two names: under this one it is the remote shell.
ln -f "$BIN/muster-agent" "$BIN/muster-rsh"
# For the ABI that MPICH, Intel MPI and MVAPICH share: whichever libmpi.so.12 the ranks find.
build_allreduce mpich "$MPI_PREFIXES/mpich/bin/mpicc" muster-allreduce-mpi
# And for the ABI of Open MPI 4 and 5: whichever libmpi.so.40 the ranks find.
build_allreduce openmpi mpicc.openmpi muster-allreduce-mpi-openmpi
scripts/build-pmix.sh
