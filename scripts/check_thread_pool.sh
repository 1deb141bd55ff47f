#!/usr/bin/env bash
# Model-checks the thread pool: loom runs src/kernels/thread_pool/model.rs in every order of the threads' steps.
set -euo pipefail
cd "$(dirname "$0")/.."

RUSTFLAGS="--cfg loom" cargo test -p hornbook-kernels --lib --target-dir target/loom thread_pool::model
