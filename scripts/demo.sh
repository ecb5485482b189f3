#!/usr/bin/env bash
# Four hosts with an agent each, eight ranks of a checked allreduce over them: once with MPICH, whose ranks the agents serve by
# PMI, and once with Open MPI, whose ranks they serve by PMIx. As root every host has its own network, host name, /tmp and
# processes. Arguments go to the allreduce programs, e.g. `scripts/demo.sh -e 1M`.
. "$(dirname "$0")/lib.sh"
need_cargo

[ "$(id -u)" = 0 ] || die "the demonstration makes its hosts out of namespaces, which needs root"
cargo build --locked --quiet -p muster-cluster --bin cluster-up

# Runs on the launcher's host: a job over all hosts, with the time line.
job() {
    echo "== $1"
    "$ROOT/dist/bin/muster" run -v --timeout 120s --key-file "$MUSTER_DEMO_KEY" -H h0:2,h1:2,h2:2,h3:2 "${@:2}"
}

if [ -z "${MUSTER_DEMO_KEY:-}" ]; then
    # cluster-up starts the agents, says where the job key is, and runs this script again on the launcher's host.
    exec "$ROOT/target/debug/cluster-up" --hosts 4 --agents -- env "PATH=$PATH" "$ROOT/scripts/demo.sh" "$@"
fi

[ $# -gt 0 ] || set -- -b 8 -e 1M -f 8 -n 5 -w 1
# Waiting ranks give way early in both, since they outnumber the cores.
# MPICH 5 from its wheel, over plain sockets.
job "MPICH, by PMI" -x "LD_LIBRARY_PATH=$MPI_PREFIXES/mpich/lib" -x MPIR_CVAR_CH4_NETMOD=ofi -x FI_PROVIDER=tcp \
    -x MPIR_CVAR_ENABLE_HEAVY_YIELD=1 -x MPIR_CVAR_POLLS_BEFORE_YIELD=10 "$ROOT/dist/bin/muster-allreduce-mpi" "$@"
# Debian's Open MPI.
job "Open MPI, by PMIx" -x OMPI_MCA_mpi_yield_when_idle=1 "$ROOT/dist/bin/muster-allreduce-mpi-openmpi" "$@"
