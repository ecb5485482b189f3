#!/usr/bin/env bash
# mpi4py's own test suite with four ranks on two hosts, by `muster run` and by the MPI's own launcher: no test that passes there may
# fail here. Results are under target/conformance.
#   mpi4py.sh [--over MPI] [MODULES]
# MPI is mpich (5.0.2, the default), openmpi4 (4.1.4) or openmpi5 (5.0.11). Only test modules whose file name matches the regular
# expression MODULES are run, e.g. 'spawn|dynproc'.
. "$(dirname "$0")/lib.sh"

over=mpich
if [ "${1:-}" = --over ]; then
    over=${2:-}
    shift 2 || die "--over takes mpich, openmpi4 or openmpi5"
fi
over "$over"

OUT=$ROOT/target/conformance
NAME=mpi4py.$over
LIMIT_S=1800
# A test that hangs, under either launcher, takes the rest of its run along: those that may hang have runs of their own.
HANGING=('test_rma\.py' 'test_rma_nb\.py')
HANGING_LIMIT_S=120
# Four ranks that wait in loops share a few cores: they give way early.
case $over in
mpich) SETTINGS+=(MPIR_CVAR_ENABLE_HEAVY_YIELD=1 MPIR_CVAR_POLLS_BEFORE_YIELD=10) ;;
openmpi*)
    SETTINGS+=(OMPI_MCA_mpi_yield_when_idle=1)
    RANK_SETTINGS+=(MPI4PY_MPIABI=openmpi)
    if [ "$over" = openmpi5 ]; then
        # mpirun 5.0.11 loses a daemon when ranks of both hosts spawn, and all ranks with it.
        HANGING+=('test_spawn\.py')
        # Its windows over TCP take some hundred times as long as those of 4.1: two minutes for what does not hang.
        HANGING_LIMIT_S=600
    fi
    ;;
esac
RANK='exec "$1" test/main.py -v --no-numba --no-cupy -i "$2" 2>"$3.${PMI_RANK:-$OMPI_COMM_WORLD_RANK}"'

# for_ranks: the options by which every rank gets its variables, a word on each line.
for_ranks() {
    local set
    for set in "${RANK_SETTINGS[@]}" "$@"; do
        case $over in
        mpich) printf '%s\n' -genv "${set%%=*}" "${set#*=}" ;;
        *) printf '%s\n' -x "$set" ;;
        esac
    done
}

# run WHO PART LIMIT MODULES…: every rank writes a file of its own. Programs that tests write, and spawn on the other host, too,
# are in a folder that both hosts see. What was not finished within the limit has failed.
run() {
    local who=$1 logs=$OUT/$NAME.$1.$2 limit=$3 options
    shift 3
    rm -rf "$logs"
    mkdir -p "$logs/tmp"
    mapfile -t options < <(for_ranks "TMPDIR=$logs/tmp")
    # Its own status says only that something failed.
    under "$who" h0,h1 "$CACHE/mpi4py" sh -c \
        'limit=$1; shift; exec timeout --foreground --kill-after=10 "$limit" "$CONFORMANCE_MPIEXEC" -n 4 "$@"' \
        - "$limit" "${options[@]}" sh -c "$RANK" - "$VENV/bin/python" "$(IFS='|'; echo "$*")" "$logs/rank" \
        >"$logs.log" 2>&1 || true
    "$VENV/bin/python" "$HERE/unittest_verdicts.py" 4 "$logs" >>"$OUT/$NAME.$who.txt"
}

# chosen MODULES…: those that the command line asks for.
chosen() { printf '%s\n' "$@" | grep -E -- "$wanted" || true; }

wanted=${1:-.}
hanging=$(IFS='|'; echo "${HANGING[*]}")
# UCX cannot spawn, and hangs in some tests of topologies, so it is the other transport.
mapfile -t all < <(cd "$CACHE/mpi4py/test" && ls test_*.py)
mapfile -t modules < <(chosen "${all[@]}" | grep -Ev -- "$hanging")
mapfile -t alone < <(chosen "${all[@]}" | grep -E -- "$hanging")
mkdir -p "$OUT"
for who in "$PEER" muster; do
    begun=$SECONDS
    : >"$OUT/$NAME.$who.txt"
    [ ${#modules[@]} -eq 0 ] || run "$who" rest "$LIMIT_S" "${modules[@]}"
    for module in "${alone[@]}"; do run "$who" "${module%.py}" "$HANGING_LIMIT_S" "$module"; done
    say "$who: $((SECONDS - begun)) s"
done
report "$over" "$OUT/$NAME.$PEER.txt" "$OUT/$NAME.muster.txt"
