#!/usr/bin/env bash
# Build the fuzz targets with libFuzzer and the sanitizers and run each one for its share of SECONDS.
#
#   tools/fuzz.sh SECONDS
#
# The stored corpus is only read; what is found on the way stays in build/fuzz/work, and an input
# that fails in build/fuzz/failures.
set -euo pipefail
cd "$(dirname "$0")/.."
seconds=${1:?seconds}
build=build/fuzz/meson

if [ ! -e "$build/build.ninja" ]; then
    # fuzzer-no-link: the library under test reports its coverage too, not only the target's own file.
    CC=clang meson setup "$build" -Dpython=false -Dtests=true -Dfuzz=true -Dbuildtype=debugoptimized \
        -Db_sanitize=address,undefined -Db_lundef=false -Dc_args=-fsanitize=fuzzer-no-link >/dev/null
fi
names=()
for source in tests/fuzz/fuzz_*.c; do names+=("$(basename "$source" .c)"); done
meson compile -C "$build" "${names[@]}" >"$build/compile.log" || { cat "$build/compile.log"; exit 1; }

targets=("${names[@]/#/$build/tests/fuzz/}")
share=$((seconds / ${#targets[@]}))
[ "$share" -gt 0 ] || share=1

failed=0
for target in "${targets[@]}"; do
    name=$(basename "$target")
    name=${name#fuzz_}
    work=build/fuzz/work/$name
    mkdir -p "$work" build/fuzz/failures
    corpus=()
    [ -d "tests/fuzz/corpus/$name" ] && corpus=("tests/fuzz/corpus/$name")
    log=build/fuzz/$name.log
    echo "== fuzz $name, $share s"
    if UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1 "$target" -max_total_time="$share" -timeout=10 \
        -rss_limit_mb=2048 -artifact_prefix="build/fuzz/failures/$name-" "$work" "${corpus[@]}" 2>"$log"; then
        tail -n 1 "$log"
    else
        tail -n 40 "$log"
        failed=1
    fi
done
exit $failed
