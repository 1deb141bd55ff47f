#!/usr/bin/env bash
# Runs tests of the kernels under Miri, which finds undefined behavior and data races. It executes portable code
# only, about a thousand times slower: name a few tests, by default those of the thread pool.
#
#     scripts/check_miri.sh [FILTER]
#
# Needs a nightly toolchain with the components miri and rust-src.
set -euo pipefail
cd "$(dirname "$0")/.."

# Worker threads of a dropped pool may still be ending when the tests do.
export MIRIFLAGS=-Zmiri-ignore-leaks
cargo +nightly miri test -p hornbook-kernels --lib --target-dir target/miri -- "${1:-thread_pool}"
