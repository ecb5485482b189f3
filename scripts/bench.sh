#!/usr/bin/env bash
# Measures the whole against its peers; arguments go to the program (`scripts/bench.sh --help`). Without a row's name all
# are measured and benches/README.md gets the results.
. "$(dirname "$0")/lib.sh"
need_cargo

[ "$(id -u)" = 0 ] || die "the measurements make their hosts out of namespaces, which needs root"
scripts/setup.sh test
scripts/build-tests.sh
mkdir -p target/bench
cc -std=gnu11 -O2 -Wall -Wextra -Werror -static -o target/bench/enter benches/peers/enter.c
cargo build --locked --quiet --release -p muster-benches
# A thousand agents have their pipes in one process.
ulimit -n "$(ulimit -Hn)"
if [ $# -eq 0 ]; then set -- --write benches/README.md; fi
exec target/release/bench "$@"
