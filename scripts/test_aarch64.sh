#!/usr/bin/env bash
# Compares a build for 64-bit ARM, run by qemu, with a build for this machine: text, logprobs, inspect, heads
# and perplexity have to be the same to the bit, in every precision.
#
#     scripts/test_aarch64.sh target/release/hornbook
#
# Needs the Rust target aarch64-unknown-linux-gnu and Debian's gcc-aarch64-linux-gnu and qemu-user. Where one
# of them is missing, the test is skipped with a message and status 0.
set -euo pipefail
binary=$(realpath "${1:?"usage: scripts/test_aarch64.sh BINARY, e.g. target/release/hornbook"}")
cd "$(dirname "$0")/.."
target=aarch64-unknown-linux-gnu

skip() {
    echo "scripts/test_aarch64.sh: skipped, $1"
    exit 0
}

command -v aarch64-linux-gnu-gcc >/dev/null || skip "aarch64-linux-gnu-gcc not found"
command -v qemu-aarch64 >/dev/null || skip "qemu-aarch64 not found"
rustup target list --installed 2>/dev/null | grep -qx $target || skip "the Rust target $target is not installed"

export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc
cargo build --release --target $target
export QEMU_LD_PREFIX=/usr/aarch64-linux-gnu HORNBOOK_CONFIG= HORNBOOK_ISA=
arm=${CARGO_TARGET_DIR:-target}/$target/release/hornbook

same=0
# compare ARGUMENT...: both programs print the same, times, speeds and ids aside.
compare() {
    local filter='/"(id|created|seconds|[a-z_]*_seconds|threads|isa)":|tokens\/s/d'
    local here there
    here=$("$binary" "$@" | sed -E "$filter")
    there=$(qemu-aarch64 "$arm" "$@" | sed -E "$filter")
    if [ -z "$here" ] || [ "$here" != "$there" ]; then
        echo "hornbook $*: found on $target (>) other results than on $(uname -m) (<)" >&2
        diff <(echo "$here") <(echo "$there") | head -n 20 >&2
        exit 1
    fi
    same=$((same + 1))
}

text=$(mktemp)
trap 'rm -f "$text"' EXIT
head -c 300 tests/data/fable/text.txt >"$text" # qemu reads some ten tokens a second

qemu-aarch64 "$arm" --version
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
echo "scripts/test_aarch64.sh: $same outputs are identical to those of $(uname -m)"
