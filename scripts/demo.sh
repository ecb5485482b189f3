#!/usr/bin/env bash
# Four hosts with an agent each, eight ranks of a checked allreduce over them. As root every host has its own network,
# host name, /tmp and processes. Arguments go to the allreduce program, e.g. `scripts/demo.sh -e 1M`.
. "$(dirname "$0")/lib.sh"
need_cargo

[ "$(id -u)" = 0 ] || die "the demonstration makes its hosts out of namespaces, which needs root"
cargo build --locked --quiet -p muster-cluster --bin cluster-up

[ $# -gt 0 ] || set -- -b 8 -e 1M -f 8 -n 5 -w 1
# The ranks' MPI is MPICH 5 from its wheel, over plain sockets, and waiting ranks give way early: they outnumber the cores.
MPI=(-x "LD_LIBRARY_PATH=$MPI_PREFIXES/mpich/lib" -x MPIR_CVAR_CH4_NETMOD=ofi -x FI_PROVIDER=tcp
    -x MPIR_CVAR_ENABLE_HEAVY_YIELD=1 -x MPIR_CVAR_POLLS_BEFORE_YIELD=10)
# cluster-up starts the agents, says where the job key is, and runs the rest on the launcher's host.
exec "$ROOT/target/debug/cluster-up" --hosts 4 --agents -- \
    sh -c 'exec "$0" run -v --timeout 120s --key-file "$MUSTER_DEMO_KEY" -H h0:2,h1:2,h2:2,h3:2 "$@"' \
    "$ROOT/dist/bin/muster" "${MPI[@]}" "$ROOT/dist/bin/muster-allreduce-mpi" "$@"
