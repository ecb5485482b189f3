# Shared by the scripts beside it: sourced, not run. Sets ROOT and goes there.
set -euo pipefail

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$ROOT"
CACHE=$ROOT/.cache
VENV=$CACHE/venv
MPI_PREFIXES=$CACHE/mpi

say() { printf '%s: %s\n' "${0##*/}" "$*" >&2; }
die() { say "$*"; exit 1; }

# The triple of this machine, for the explicit --target that a static build needs.
host_triple() { rustc -vV | sed -n 's/^host: //p'; }

need_cargo() {
    command -v cargo >/dev/null && return
    die "cargo is not on PATH; install stable Rust 1.90 or newer with rustfmt and clippy (rustup does), then run this again"
}

# install_changed FILE TO: an unchanged file keeps its inode, a changed one gets a new one even while it runs.
install_changed() {
    cmp -s "$1" "$2" && return
    install -m 755 "$1" "$2.new"
    mv "$2.new" "$2"
}
