# Shared by the conformance scripts: sourced, not run. Two hosts made of namespaces, and a command on them under each of
# the two launchers, with the same MPI below both.
. "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"

HERE=$ROOT/scripts/conformance
[ "$(id -u)" = 0 ] || die "the hosts are made of namespaces, which needs root"
[ -x "$ROOT/dist/bin/muster-agent" ] || die "dist/bin/muster-agent is missing; \`make build\` makes it"
need_cargo

# over mpich|openmpi4|openmpi5: chooses the MPI below both launchers. Sets the launcher that its authors use (PEER), that launcher's
# path, the variables of both commands (SETTINGS), and those without which the ranks do not find it (RANK_SETTINGS).
over() {
    export CONFORMANCE_OVER=$1 CONFORMANCE_MPI CONFORMANCE_LAUNCHER
    RANK_SETTINGS=()
    case $1 in
    mpich)
        PEER=hydra CONFORMANCE_MPI=$MPI_PREFIXES/mpich CONFORMANCE_LAUNCHER=$MPI_PREFIXES/mpich/bin/mpiexec.hydra
        # What lets the two hosts talk over sockets, whatever devices the machine has; UCX, the other choice, cannot spawn.
        SETTINGS=(MPIR_CVAR_CH4_NETMOD=ofi FI_PROVIDER=tcp)
        RANK_SETTINGS=("LD_LIBRARY_PATH=$CONFORMANCE_MPI/lib")
        ;;
    openmpi4)
        PEER=mpirun CONFORMANCE_MPI=/usr CONFORMANCE_LAUNCHER=/usr/bin/mpirun.openmpi
        SETTINGS=()
        ;;
    openmpi5)
        PEER=mpirun CONFORMANCE_MPI=$MPI_PREFIXES/openmpi CONFORMANCE_LAUNCHER=$MPI_PREFIXES/openmpi/bin/mpirun
        SETTINGS=()
        RANK_SETTINGS=("LD_LIBRARY_PATH=$CONFORMANCE_MPI/lib")
        ;;
    *) die "there is no MPI called $1; there are mpich, openmpi4 and openmpi5" ;;
    esac
    [ -x "$CONFORMANCE_LAUNCHER" ] || die "$CONFORMANCE_LAUNCHER is missing; scripts/setup.sh installs it"
}

# under PEER|muster HOSTS FOLDER COMMAND…: runs it on the launcher's host; CONFORMANCE_MPIEXEC is the launcher to test.
under() {
    local who=$1 hosts=$2 folder=$3 up=$ROOT/target/debug/cluster-up
    shift 3
    cargo build --locked --quiet -p muster-cluster --bin cluster-up
    local settings=("CONFORMANCE_OVER=$CONFORMANCE_OVER" "CONFORMANCE_MPI=$CONFORMANCE_MPI" "CONFORMANCE_HOSTS=$hosts"
        "CONFORMANCE_LAUNCHER=$CONFORMANCE_LAUNCHER" "CONFORMANCE_MPIEXEC=$HERE/mpiexec-$who" "${SETTINGS[@]}")
    case $who in
    # Whoever enters another host has to see its processes: only the network and the name are the launcher's.
    "$PEER") "$up" --hosts 2 --outside -- sh -c 'exec setpriv --pdeathsig KILL nsenter -t "${MUSTER_DEMO_PIDS##*launcher=}" -u -n -- env -C "$@"' - \
        "$folder" "${settings[@]}" "$@" ;;
    muster) "$up" --hosts 2 --agents -- env -C "$folder" "${settings[@]}" "$@" ;;
    esac
}

# regressions PEER MUSTER: names that passed by the first file and did not by the second. A file has "pass|fail NAME" lines.
regressions() { comm -23 <(sed -n 's/^pass //p' "$1" | sort) <(sed -n 's/^pass //p' "$2" | sort); }

# report TITLE PEER MUSTER: the table, and failure when there is a regression or nothing was run.
report() {
    local lost
    lost=$(regressions "$2" "$3")
    printf '%-8s %6s %6s\n' "$1" pass fail
    printf '%-8s %6d %6d\n' "$PEER" "$(grep -c ^pass "$2" || true)" "$(grep -c ^fail "$2" || true)" \
        muster "$(grep -c ^pass "$3" || true)" "$(grep -c ^fail "$3" || true)"
    printf 'fails under both: %s\n' "$(comm -12 <(sed -n 's/^fail //p' "$2" | sort) <(sed -n 's/^fail //p' "$3" | sort) | paste -sd, -)"
    printf 'passes under muster only: %s\n' "$(regressions "$3" "$2" | paste -sd, -)"
    [ -z "$lost" ] || { printf 'passes under %s only: %s\n' "$PEER" "$(paste -sd, - <<<"$lost")"; return 1; }
    grep -q ^pass "$3" || die "no test has passed"
}
