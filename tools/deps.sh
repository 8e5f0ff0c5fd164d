#!/usr/bin/env bash
# Install what the build and the tests need from the system (Debian), or say what to install.
#
#   tools/deps.sh          compiler, Python, SQLite, OpenSSL and hiredis headers, redis-server
#   tools/deps.sh fuzz     the same and clang with libFuzzer
#   tools/deps.sh bench    the same, wrk and valgrind
#   tools/deps.sh matrix   the same and what client libraries need that pip must compile
#
# It asks for each thing itself, not for the package, so a machine with a Python or a Redis of its
# own is fine. PYTHON names the interpreter (python3).
set -euo pipefail
python=${PYTHON:-python3}

have() { command -v "$1" >/dev/null 2>&1; }

compiles() { # COMPILER LANGUAGE FLAGS... < source
    local compiler=$1 language=$2
    shift 2
    "$compiler" -x "$language" - -o /dev/null "$@" >/dev/null 2>&1
}

find_missing() {
    missing=()
    have gcc || missing+=(gcc)
    echo 'int main(void) { return 0; }' | compiles gcc c || missing+=(gcc libc6-dev)
    echo 'int main(void) { return 0; }' | compiles gcc c -fsanitize=address,undefined || missing+=(gcc)
    echo 'int main() { return 0; }' | compiles g++ c++ || missing+=(g++)
    have make || missing+=(make)
    have pkg-config || missing+=(pkg-config)
    pkg-config --exists sqlite3 2>/dev/null || missing+=(libsqlite3-dev)
    pkg-config --exists libcrypto 2>/dev/null || missing+=(libssl-dev)
    pkg-config --exists hiredis 2>/dev/null || missing+=(libhiredis-dev)
    have redis-server || missing+=(redis-server)
    if ! have "$python"; then
        missing+=(python3 python3-dev python3-venv)
    else
        "$python" -c 'import ensurepip, venv' 2>/dev/null || missing+=(python3-venv)
        "$python" - <<'P' 2>/dev/null || missing+=(python3-dev)
import os, sys, sysconfig
sys.exit(not os.path.exists(os.path.join(sysconfig.get_path("include"), "Python.h")))
P
    fi
    if [ "${1:-}" = fuzz ]; then
        echo 'int LLVMFuzzerTestOneInput(const char *d, unsigned long n) { return d && n > 9; }' |
            compiles clang c -fsanitize=fuzzer,address || missing+=(clang libclang-rt-dev)
    elif [ "${1:-}" = bench ]; then
        have wrk || missing+=(wrk)
        have valgrind || missing+=(valgrind)
    elif [ "${1:-}" = matrix ]; then
        printf '#include <libmemcached/memcached.h>\nint main(void) { return 0; }' |
            compiles gcc c || missing+=(libmemcached-dev zlib1g-dev)
    fi
}

find_missing "$@"
if [ ${#missing[@]} -gt 0 ]; then
    mapfile -t missing < <(printf '%s\n' "${missing[@]}" | sort -u)
    as_root=()
    if [ "$(id -u)" != 0 ]; then
        have sudo && as_root=(sudo)
    fi
    if ! have apt-get || { [ "$(id -u)" != 0 ] && [ ${#as_root[@]} = 0 ]; }; then
        echo "These packages are missing; install them and try again:" >&2
        echo "    ${missing[*]}" >&2
        exit 1
    fi
    echo "Installing: ${missing[*]}"
    # RUNLEVEL=1: a redis-server that comes in as a test tool is not started as a service where
    # there is no systemd.
    apt=(env DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 apt-get -q)
    "${as_root[@]}" "${apt[@]}" update
    "${as_root[@]}" "${apt[@]}" install -y --no-install-recommends "${missing[@]}"
    hash -r
    find_missing "$@"
    if [ ${#missing[@]} -gt 0 ]; then
        echo "Still missing after the installation: ${missing[*]}" >&2
        exit 1
    fi
fi

if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 10))'; then
    echo "$python is too old: Python 3.10 or newer is needed (make PYTHON=... chooses another)" >&2
    exit 1
fi
