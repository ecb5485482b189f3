#!/usr/bin/env bash
# mpi4py's own test suite with four ranks on two hosts, over MPICH 5.0.2, by `muster run` and by MPICH's mpiexec: no test
# that passes there may fail here. Results are under target/conformance.
#   mpi4py.sh [MODULES]      only test modules whose file name matches this regular expression, e.g. 'spawn|dynproc'
. "$(dirname "$0")/lib.sh"

OUT=$ROOT/target/conformance
LIMIT_S=1800
# A test that hangs, under either launcher, takes the rest of its run along: those that may hang have runs of their own.
HANGING=('test_rma\.py' 'test_rma_nb\.py')
HANGING_LIMIT_S=120
# Four ranks that wait in loops share a few cores: they give way early.
GIVE_WAY=(MPIR_CVAR_ENABLE_HEAVY_YIELD=1 MPIR_CVAR_POLLS_BEFORE_YIELD=10)
RANK='exec "$1" test/main.py -v --no-numba --no-cupy -i "$2" 2>"$3.$PMI_RANK"'

# run WHO PART LIMIT MODULES…: every rank writes a file of its own. Programs that tests write, and spawn on the other host, too,
# are in a folder that both hosts see. What was not finished within the limit has failed.
run() {
    local who=$1 logs=$OUT/mpi4py.$1.$2 limit=$3
    shift 3
    rm -rf "$logs"
    mkdir -p "$logs/tmp"
    # Its own status says only that something failed.
    under "$who" h0,h1 "$CACHE/mpi4py" "${GIVE_WAY[@]}" sh -c \
        'limit=$1 lib=$2 tmp=$3; shift 3
         exec timeout --foreground --kill-after=10 "$limit" "$CONFORMANCE_MPIEXEC" -n 4 -genv LD_LIBRARY_PATH "$lib" -genv TMPDIR "$tmp" sh -c "$@"' \
        - "$limit" "$CONFORMANCE_MPI/lib" "$logs/tmp" "$RANK" - "$VENV/bin/python" "$(IFS='|'; echo "$*")" "$logs/rank" \
        >"$logs.log" 2>&1 || true
    "$VENV/bin/python" "$HERE/unittest_verdicts.py" 4 "$logs" >>"$OUT/mpi4py.$who.txt"
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
for who in hydra muster; do
    begun=$SECONDS
    : >"$OUT/mpi4py.$who.txt"
    [ ${#modules[@]} -eq 0 ] || run "$who" rest "$LIMIT_S" "${modules[@]}"
    for module in "${alone[@]}"; do run "$who" "${module%.py}" "$HANGING_LIMIT_S" "$module"; done
    say "$who: $((SECONDS - begun)) s"
done
report mpi4py "$OUT/mpi4py.hydra.txt" "$OUT/mpi4py.muster.txt"
