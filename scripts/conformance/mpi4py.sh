#!/usr/bin/env bash
# mpi4py's own test suite with four ranks on two hosts, over MPICH 5.0.2, by `muster run` and by MPICH's mpiexec: no test
# that passes there may fail here. Results are under target/conformance.
. "$(dirname "$0")/lib.sh"

OUT=$ROOT/target/conformance
