#!/usr/bin/env bash
# Builds the release files in target/release-files: for x86-64 Linux a static, stripped binary with fable
# embedded, packaged with completions, man pages and licenses, and its SHA-256. Then checks that the code
# compiles for other targets whose toolchains are installed.
#
#   scripts/release.sh            build and check
#   scripts/release.sh --check    check only
#
# The TLS library of `hornbook pull` needs a C compiler: musl-gcc (Debian: musl-tools) for the build, and
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
    local binary=target/$target/release/hornbook

    # The binary must run on its own, without libraries or other files.
    if file "$binary" | grep -q 'dynamically linked'; then
        echo "$binary is dynamically linked, expected a static binary" >&2
        exit 1
    fi
    local version empty
    version=$("$binary" --version | cut -d ' ' -f 2)
    empty=$(mktemp -d)
    cp "$binary" "$empty/hornbook"
    (cd "$empty" &&
        env -i HOME="$empty" ./hornbook generate "Once upon a time" --seed 3 --max-tokens 20 > story.txt)
    test -s "$empty/story.txt"
    rm -r "$empty"

    local name=hornbook-$version-x86_64-linux
    rm -rf "${files:?}/$name"
    mkdir -p "$files/$name/completions" "$files/$name/man/man1"
    cp "$binary" README.md LICENSE-MIT LICENSE-APACHE models/fable/MODEL_CARD.md \
        models/fable/TRAINING_DATA.md "$files/$name"
    for shell in bash zsh fish powershell; do
        "$binary" completions "$shell" > "$files/$name/completions/hornbook.$shell"
    done
    "$binary" man --dir "$files/$name/man/man1"
    tar -C "$files" --sort=name --owner=0 --group=0 --numeric-owner -czf "$files/$name.tar.gz" "$name"
    (cd "$files" && sha256sum "$name.tar.gz" | tee "$name.tar.gz.sha256")
    "$binary" --version
    du -h "$binary" "$files/$name.tar.gz"
}

# Compiles for a target without linking; prints a note and skips it if its toolchain is incomplete.
check() {
    local target=$1 compiler=$2
    if ! add_target "$target"; then
        echo "$target: skipped, rustup cannot add it"
    elif [[ -n $compiler ]] && ! has "$compiler"; then
        echo "$target: skipped, $compiler is not installed"
    else
        cargo check --locked --target "$target"
        echo "$target: compiles"
    fi
}

[[ ${1-} == --check ]] || build
check aarch64-unknown-linux-gnu aarch64-linux-gnu-gcc
check x86_64-pc-windows-gnu x86_64-w64-mingw32-gcc
