# Shared by the conformance scripts: sourced, not run. Two hosts made of namespaces, and a command on them under each of
# the two launchers, with the same MPICH below both.
. "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"

HERE=$ROOT/scripts/conformance
export CONFORMANCE_MPI=$MPI_PREFIXES/mpich
[ "$(id -u)" = 0 ] || die "the hosts are made of namespaces, which needs root"
[ -x "$CONFORMANCE_MPI/bin/mpiexec.hydra" ] || die "MPICH's wheel is missing; scripts/setup.sh installs it"
[ -x "$ROOT/dist/bin/muster-agent" ] || die "dist/bin/muster-agent is missing; \`make build\` makes it"
need_cargo

# What lets the two hosts talk over sockets, whatever devices the machine has; UCX, the other choice, cannot spawn.
NETWORK=(MPIR_CVAR_CH4_NETMOD=ofi FI_PROVIDER=tcp)

# under hydra|muster HOSTS FOLDER COMMAND…: runs it on the launcher's host; CONFORMANCE_MPIEXEC is the launcher to test.
under() {
    local who=$1 hosts=$2 folder=$3 up=$ROOT/target/debug/cluster-up
    shift 3
    cargo build --locked --quiet -p muster-cluster --bin cluster-up
    local settings=("CONFORMANCE_MPI=$CONFORMANCE_MPI" "CONFORMANCE_HOSTS=$hosts" "CONFORMANCE_MPIEXEC=$HERE/mpiexec-$who"
        "${NETWORK[@]}")
    case $who in
    # Whoever enters another host has to see its processes: only the network and the name are the launcher's.
    hydra) "$up" --hosts 2 --outside -- sh -c 'exec setpriv --pdeathsig KILL nsenter -t "${MUSTER_DEMO_PIDS##*launcher=}" -u -n -- env -C "$@"' - \
        "$folder" "${settings[@]}" "$@" ;;
    muster) "$up" --hosts 2 --agents -- env -C "$folder" "${settings[@]}" "$@" ;;
    esac
}

# regressions HYDRA MUSTER: names that passed by the first file and did not by the second. A file has "pass|fail NAME" lines.
regressions() { comm -23 <(sed -n 's/^pass //p' "$1" | sort) <(sed -n 's/^pass //p' "$2" | sort); }

# report TITLE HYDRA MUSTER: the table, and failure when there is a regression or nothing was run.
report() {
    local lost
    lost=$(regressions "$2" "$3")
    printf '%-8s %6s %6s\n' "$1" pass fail
    printf '%-8s %6d %6d\n' hydra "$(grep -c ^pass "$2" || true)" "$(grep -c ^fail "$2" || true)" \
        muster "$(grep -c ^pass "$3" || true)" "$(grep -c ^fail "$3" || true)"
    printf 'fails under both: %s\n' "$(comm -12 <(sed -n 's/^fail //p' "$2" | sort) <(sed -n 's/^fail //p' "$3" | sort) | paste -sd, -)"
    printf 'passes under muster only: %s\n' "$(regressions "$3" "$2" | paste -sd, -)"
    [ -z "$lost" ] || { printf 'passes under hydra only: %s\n' "$(paste -sd, - <<<"$lost")"; return 1; }
    grep -q ^pass "$3" || die "no test has passed"
}
