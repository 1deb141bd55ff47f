#!/usr/bin/env bash
# Builds what a release consists of into target/release-files: for x86-64 Linux a static, stripped program with fable in
# it, packed with completions, manual and licences, and its SHA-256. Then checks that the code compiles for other
# machines, as far as their toolchains are here.
#
#   scripts/release.sh            both
#   scripts/release.sh --check    the second alone
#
# A C compiler is needed for the TLS that `hornbook pull` speaks: musl-gcc (Debian: musl-tools) for the build, those of
# gcc-aarch64-linux-gnu and gcc-mingw-w64-x86-64 for the checks.
set -euo pipefail
cd "$(dirname "$0")/.."

has() { command -v "$1" > /dev/null; }
add_target() { ! has rustup || rustup target add "$1" > /dev/null 2>&1; }

build() {
    local target=x86_64-unknown-linux-musl files=target/release-files
    add_target "$target"
    export CARGO_PROFILE_RELEASE_STRIP=symbols
    cargo build --release --locked --target "$target"
    local program=target/$target/release/hornbook

    # It must run alone: no library, no file beside it.
    if file "$program" | grep -q 'dynamically linked'; then
        echo "$program is linked to libraries, expected a static program" >&2
        exit 1
    fi
    local version empty
    version=$("$program" --version | cut -d ' ' -f 2)
    empty=$(mktemp -d)
    cp "$program" "$empty/hornbook"
    (cd "$empty" && env -i HOME="$empty" ./hornbook generate "Once upon a time" --seed 3 --max-tokens 20 > story.txt)
    test -s "$empty/story.txt"
    rm -r "$empty"

    local name=hornbook-$version-x86_64-linux
    rm -rf "${files:?}/$name"
    mkdir -p "$files/$name/completions" "$files/$name/man/man1"
    cp "$program" README.md LICENSE-MIT LICENSE-APACHE models/fable/MODEL_CARD.md "$files/$name"
    for shell in bash zsh fish powershell; do
        "$program" completions "$shell" > "$files/$name/completions/hornbook.$shell"
    done
    "$program" man --dir "$files/$name/man/man1"
    tar -C "$files" --sort=name --owner=0 --group=0 --numeric-owner -czf "$files/$name.tar.gz" "$name"
    (cd "$files" && sha256sum "$name.tar.gz" | tee "$name.tar.gz.sha256")
    "$program" --version
    du -h "$program" "$files/$name.tar.gz"
}

# Compiles for a target without linking; skipped, and said so, where a part of its toolchain is missing.
check() {
    local target=$1 compiler=$2
    if ! add_target "$target"; then
        echo "$target: skipped, rustup cannot add it"
    elif [[ -n $compiler ]] && ! has "$compiler"; then
        echo "$target: skipped, there is no $compiler"
    else
        cargo check --locked --target "$target"
        echo "$target: compiles"
    fi
}

[[ ${1-} == --check ]] || build
check aarch64-unknown-linux-gnu aarch64-linux-gnu-gcc
check x86_64-pc-windows-gnu x86_64-w64-mingw32-gcc
