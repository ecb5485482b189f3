#!/usr/bin/env bash
# mpi4py's own test suite with four ranks on two hosts, over MPICH 5.0.2, by `muster run` and by MPICH's mpiexec: no test
# that passes there may fail here. Results are under target/conformance.
#   mpi4py.sh [MODULES]      only test modules whose name matches this regular expression, e.g. 'spawn|dynproc'
. "$(dirname "$0")/lib.sh"

OUT=$ROOT/target/conformance
MODULES=${1:-.}
LIMIT_S=3600
# Four ranks that wait in loops share a few cores: they give way early.
GIVE_WAY=(MPIR_CVAR_ENABLE_HEAVY_YIELD=1 MPIR_CVAR_POLLS_BEFORE_YIELD=10)

# Every rank writes a file of its own; a test has passed when every rank says so. Programs that tests write and spawn on the
# other host, too, are in a folder that both hosts see.
run() { # WHO
    local logs=$OUT/mpi4py.$1
    rm -rf "$logs"
    mkdir -p "$logs/tmp"
    # Its own status says only that something failed.
    under "$1" h0,h1 "$CACHE/mpi4py" "${GIVE_WAY[@]}" sh -c \
        'exec timeout "$1" "$CONFORMANCE_MPIEXEC" -n 4 -genv LD_LIBRARY_PATH "$CONFORMANCE_MPI/lib" -genv TMPDIR "$4/tmp" sh -c "exec \"\$1\" test/main.py -v --no-numba --no-cupy -i \"\$2\" 2>\"\$3/rank.\$PMI_RANK\"" - "$2" "$3" "$4"' \
        - "$LIMIT_S" "$VENV/bin/python" "$MODULES" "$logs" >"$OUT/mpi4py.$1.log" 2>&1 || true
    "$VENV/bin/python" "$HERE/unittest_verdicts.py" 4 "$logs" >"$OUT/mpi4py.$1.txt"
}

mkdir -p "$OUT"
for who in hydra muster; do
    begun=$SECONDS
    run "$who"
    say "$who: $((SECONDS - begun)) s"
done
report mpi4py "$OUT/mpi4py.hydra.txt" "$OUT/mpi4py.muster.txt"
