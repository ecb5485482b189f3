#!/usr/bin/env bash
# mpi4py's own test suite with four ranks on two hosts, over MPICH 5.0.2, by `muster run` and by MPICH's mpiexec: no test
# that passes there may fail here. Results are under target/conformance.
#   mpi4py.sh [MODULES]      only test modules whose file name matches this regular expression, e.g. 'spawn|dynproc'
. "$(dirname "$0")/lib.sh"

OUT=$ROOT/target/conformance
LIMIT_S=1800
# Four ranks that wait in loops share a few cores: they give way early.
GIVE_WAY=(MPIR_CVAR_ENABLE_HEAVY_YIELD=1 MPIR_CVAR_POLLS_BEFORE_YIELD=10)
RANK='exec "$1" test/main.py -v --no-numba --no-cupy -i "$2" 2>"$3.$PMI_RANK"'

# run WHO: every rank writes a file of its own. Programs that tests write, and spawn on the other host, too, are in a folder
# that both hosts see.
run() {
    local who=$1 logs=$OUT/mpi4py.$1
    rm -rf "$logs"
    mkdir -p "$logs/tmp"
    # Its own status says only that something failed.
    under "$who" h0,h1 "$CACHE/mpi4py" "${GIVE_WAY[@]}" sh -c \
        'limit=$1 lib=$2 tmp=$3; shift 3
         exec timeout --foreground --kill-after=10 "$limit" "$CONFORMANCE_MPIEXEC" -n 4 -genv LD_LIBRARY_PATH "$lib" -genv TMPDIR "$tmp" sh -c "$@"' \
        - "$LIMIT_S" "$CONFORMANCE_MPI/lib" "$logs/tmp" "$RANK" - "$VENV/bin/python" "$(IFS='|'; echo "${modules[*]}")" "$logs/rank" \
        >"$OUT/mpi4py.$who.log" 2>&1 || true
    "$VENV/bin/python" "$HERE/unittest_verdicts.py" 4 "$logs" >"$OUT/mpi4py.$who.txt"
}

# UCX cannot spawn, and hangs in some tests of topologies, so it is the other transport. Over either, one-sided tests hang
# between hosts, whoever has started the ranks, and a test that hangs ends the run: they are left out.
mapfile -t modules < <(cd "$CACHE/mpi4py/test" && ls test_*.py | grep -E -- "${1:-.}" | grep -v '^test_rma')
mkdir -p "$OUT"
for who in hydra muster; do
    begun=$SECONDS
    run "$who"
    say "$who: $((SECONDS - begun)) s"
done
report mpi4py "$OUT/mpi4py.hydra.txt" "$OUT/mpi4py.muster.txt"
