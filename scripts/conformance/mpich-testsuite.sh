#!/usr/bin/env bash
# The folders `init` and `spawn` of MPICH's own test suite, built against MPICH 5.0.2 and run over two hosts, by `muster run`
# and by MPICH's mpiexec: no test that passes there may fail here. Results are under target/conformance.
. "$(dirname "$0")/lib.sh"
over mpich

SUITE=$CACHE/mpich-testsuite
DIRS=(init spawn)
OUT=$ROOT/target/conformance

# Debian's source package has the suite with a ready configure. Sources are wherever packages of this machine come from.
fetch() {
    local apt=$CACHE/mpich-source file
    rm -rf "$apt" "$SUITE"
    mkdir -p "$apt/parts" "$apt/lists/partial"
    for file in /etc/apt/sources.list /etc/apt/sources.list.d/debian*.list; do
        [ ! -f "$file" ] || sed -n 's/^deb /deb-src /p' "$file" >"$apt/parts/$(basename "$file" .list).list"
    done
    for file in /etc/apt/sources.list.d/debian*.sources; do
        [ ! -f "$file" ] || sed 's/^Types:.*/Types: deb-src/' "$file" >"$apt/parts/$(basename "$file")"
    done
    local options=(-qq -o Dir::Etc::sourcelist=/dev/null -o "Dir::Etc::sourceparts=$apt/parts" -o "Dir::State::lists=$apt/lists"
        -o APT::Sandbox::User=root)
    apt-get "${options[@]}" update
    (cd "$apt" && apt-get "${options[@]}" source --download-only mpich)
    mkdir -p "$SUITE"
    tar -xf "$apt"/mpich_*.orig.tar.xz -C "$SUITE" --strip-components=3 --wildcards '*/test/mpi/*'
    rm -rf "$apt"
}

build() {
    cd "$SUITE"
    ./configure "MPICC=$CONFORMANCE_MPI/bin/mpicc" "--with-mpi=$CONFORMANCE_MPI" --disable-fortran --disable-cxx
    make -j2 -C dtpools
    make -j2 -C util
    for dir in "${DIRS[@]}"; do make -j2 -C "$dir"; done
}

prepare() {
    local stamp=$CACHE/stamps/mpich-testsuite pins
    pins="$(cat "$CACHE/stamps/mpich") $ROOT ${DIRS[*]}"
    [ "$(cat "$stamp" 2>/dev/null)" = "$pins" ] && return
    say "fetching and building MPICH's test suite"
    fetch
    (build) >"$OUT/build.log" 2>&1 || { tail -n 20 "$OUT/build.log" >&2; die "the suite does not build"; }
    echo "$pins" >"$stamp"
}

# The lines of TAP that name tests: "ok N - ./spawn/namepub 2 …".
verdicts() {
    sed -nE 's/^ok [0-9]* ?- ([^#]*[^# ]).*/pass \1/p; s/^not ok [0-9]* ?- ([^#]*[^# ]).*/fail \1/p' "$1"
}

run() { # WHO
    local tap=$OUT/mpich-testsuite.$1.tap
    # Its own status says only that something failed.
    under "$1" h0,h1 "$SUITE" MPITEST_TIMEOUT=60 sh -c \
        'exec perl ./runtests -srcdir=. -tests=testlist -testdirs="$1" -mpiexec="$CONFORMANCE_MPIEXEC" -tapfile="$2"' \
        - "$(IFS=,; echo "${DIRS[*]}")" "$tap" >"$OUT/mpich-testsuite.$1.log" 2>&1 || true
    verdicts "$tap" >"$OUT/mpich-testsuite.$1.txt"
}

mkdir -p "$OUT" "$CACHE/stamps"
prepare
for who in "$PEER" muster; do
    begun=$SECONDS
    run "$who"
    say "$who: $((SECONDS - begun)) s"
done
report "mpich" "$OUT/mpich-testsuite.$PEER.txt" "$OUT/mpich-testsuite.muster.txt"
