#!/usr/bin/env bash
# Builds muster-pmix into dist/bin, and puts the PMIx library that it loads by default into dist/lib: Debian's, with all that it needs
# besides the C library, so that both can be copied into an image that has none of it.
. "$(dirname "$0")/lib.sh"
need_cargo

LIB=$ROOT/dist/lib
mkdir -p "$ROOT/dist/bin" "$LIB/pmix/texts"

# Dynamic, unlike the others: a static program cannot load a library.
cargo build --locked --release -p muster-pmix --bins
install_changed "$ROOT/target/release/muster-pmix" "$ROOT/dist/bin/muster-pmix"

command -v dpkg-query >/dev/null || {
    say "not a Debian system: dist/lib gets no PMIx library, so muster-pmix will look for the system's"
    exit 0
}

# from_package PACKAGE PATTERN TO: the package's file, whatever it is a link to.
from_package() {
    local file
    file=$(dpkg-query -L "$1" 2>/dev/null | grep -m1 -- "$2\$") || die "$1 has no $2; scripts/setup.sh installs it"
    install_changed "$(readlink -f "$file")" "$3"
}

# licence PACKAGE: what its authors want to go with it.
licence() {
    mkdir -p "$LIB/licences"
    install -m 644 "/usr/share/doc/$1/copyright" "$LIB/licences/$1"
}

for library in libpmix2:/pmix2/lib/libpmix.so.2 libhwloc15:/libhwloc.so.15 libevent-core-2.1-7:/libevent_core-2.1.so.7 \
    libevent-pthreads-2.1-7:/libevent_pthreads-2.1.so.7 libmunge2:/libmunge.so.2 libudev1:/libudev.so.1 zlib1g:/libz.so.1; do
    package=${library%%:*} path=${library#*:}
    from_package "$package" "$path" "$LIB/${path##*/}"
    licence "$package"
done
# Slurm's plugin is left out: it takes a server in an allocation of Slurm's for one of Slurm's own.
for plugin in pmix_mca_pcompress_zlib.so pmix_mca_prm_default.so; do
    from_package libpmix2 "/pmix2/lib/pmix/$plugin" "$LIB/pmix/$plugin"
done
texts=$(dirname "$(dpkg-query -L libpmix2 | grep -m1 '/help-pmix-runtime\.txt$')")
for text in "$texts"/help-*.txt; do
    cmp -s "$text" "$LIB/pmix/texts/${text##*/}" || install -m 644 "$text" "$LIB/pmix/texts/"
done
