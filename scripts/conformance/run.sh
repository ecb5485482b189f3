#!/usr/bin/env bash
# What `make conformance` runs of the conformance suites: MPICH's whole `init` and `spawn`, and of mpi4py's suite the
# modules that ask most of a launcher. `mpi4py.sh` alone runs all of it, which takes long on few cores.
here=$(dirname "$0")
failed=0
"$here/mpich-testsuite.sh" || failed=1
for mpi in mpich openmpi4 openmpi5; do
    "$here/mpi4py.sh" --over "$mpi" 'spawn|dynproc|environ|session' || failed=1
done
[ "$failed" = 0 ] && echo "no test that passes under the launcher of its MPI fails under muster"
exit "$failed"
