#!/usr/bin/env bash
# Compares a build for another target, run by an emulator, with a build for this machine: text, logprobs,
# inspect, heads and perplexity have to be the same to the bit, in every precision. On ARM, the kernels' own
# tests run, too, and a processor without the product of bytes is tried.
#
#     scripts/test_target.sh aarch64-unknown-linux-gnu target/release/hornbook   # 64-bit ARM, by qemu
#     scripts/test_target.sh x86_64-pc-windows-gnu target/release/hornbook       # Windows, by wine
#
# Needs the Rust target, and Debian's gcc-aarch64-linux-gnu and qemu-user, or gcc-mingw-w64-x86-64 and wine64.
# Where one of them is missing, the test is skipped with a message and status 0.
set -euo pipefail
usage="usage: scripts/test_target.sh TARGET BINARY, e.g. aarch64-unknown-linux-gnu target/release/hornbook"
target=${1:?"$usage"}
binary=$(realpath "${2:?"$usage"}")
cd "$(dirname "$0")/.."
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

skip() {
    echo "scripts/test_target.sh: $target: skipped, $1"
    exit 0
}

# needs COMMAND...
needs() {
    for command in "$@"; do
        command -v "$command" >/dev/null || skip "$command not found"
    done
    ls "$(rustc --print target-libdir --target "$target")"/libstd-*.rlib >/dev/null 2>&1 ||
        skip "the Rust target is not installed"
}

case $target in
aarch64-unknown-linux-gnu)
    needs aarch64-linux-gnu-gcc qemu-aarch64
    export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc
    export QEMU_LD_PREFIX=/usr/aarch64-linux-gnu
    export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER=qemu-aarch64
    run=(qemu-aarch64 "${CARGO_TARGET_DIR:-target}/$target/release/hornbook")
    ;;
x86_64-pc-windows-gnu)
    needs x86_64-w64-mingw32-gcc wine
    export WINEDEBUG=-all WINEPREFIX=$folder/wine
    # The random numbers of Windows, which wine 8 does not have under this name.
    printf '%s\n' '#include <windows.h>' 'BOOLEAN NTAPI SystemFunction036(PVOID, ULONG);' \
        '__declspec(dllexport) BOOL WINAPI ProcessPrng(PBYTE to, SIZE_T n) { return SystemFunction036(to, n); }' \
        >"$folder/prng.c"
    x86_64-w64-mingw32-gcc -shared "$folder/prng.c" -o "$folder/bcryptprimitives.dll" -ladvapi32
    export WINEPATH=$folder
    run=(wine "${CARGO_TARGET_DIR:-target}/$target/release/hornbook.exe")
    ;;
*)
    echo "$usage" >&2
    exit 2
    ;;
esac
cargo build --release --target "$target"
export HORNBOOK_CONFIG= HORNBOOK_ISA=

# bf16-dot on AMX adds in another order.
isa=
if "$binary" --version | grep -q "amx)"; then
    isa=avx512
fi
same=0
# compare ARGUMENT...: both programs print the same, times, speeds and ids aside.
compare() {
    local filter='/"(id|created|seconds|[a-z_]*_seconds|threads|isa)":|tokens\/s/d'
    local here there
    here=$(HORNBOOK_ISA=$isa "$binary" "$@" | sed -E "$filter")
    there=$("${run[@]}" "$@" 2>"$folder/stderr" | sed -E "$filter")
    if [ -z "$here" ] || [ "$here" != "$there" ]; then
        echo "hornbook $*: found on $target (>) other results than on $(uname -m) (<)" >&2
        diff <(echo "$here") <(echo "$there") | head -n 20 >&2
        cat "$folder/stderr" >&2
        exit 1
    fi
    same=$((same + 1))
}

text=$folder/text.txt
head -c 300 tests/data/fable/text.txt >"$text" # qemu reads some ten tokens a second

"${run[@]}" --version
for precision in f32 f16 bf16 bf16-dot int8 int4; do
    common=(--precision $precision --threads 2)
    compare generate "Once upon a time" --json --seed 7 --logprobs 5 --max-tokens 8 "${common[@]}"
    compare inspect "The cat sat" --json "${common[@]}"
    compare perplexity "$text" --context 48 "${common[@]}"
done
compare heads --json --sequences 1 --length 16
for model in tests/data/tiny-*/; do
    compare inspect --model "$model" --prompt-ids 1,2,3,4,5 --json
done
if [ "$target" = aarch64-unknown-linux-gnu ]; then
    run=(qemu-aarch64 -cpu cortex-a72 "${run[1]}")
    for precision in f32 int8 int4; do
        compare generate "Once upon a time" --json --seed 7 --logprobs 5 --max-tokens 8 --precision $precision
    done
    cargo test --release --target "$target" -p hornbook-kernels --lib
fi
echo "scripts/test_target.sh: $target: $same outputs are identical to those of $(uname -m)"
