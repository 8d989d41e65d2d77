#!/bin/bash
# What a change must pass before it is tested: formatting, lints, licences.
# usage: lint.sh
set -euo pipefail
cd "$(dirname "$0")/.."

step() { echo "==> $*"; "$@"; }

step cargo fmt --all --check
step clang-format --dry-run -Werror crates/sensor/bpf/*.h crates/sensor/bpf/*.c demo/*.c
step cargo clippy --quiet --workspace --all-targets -- -D warnings
if cargo deny --version > /dev/null 2>&1; then
	step cargo deny --log-level error check bans licenses sources
elif [ -n "${CI:-}" ]; then
	echo "lint: cargo-deny is not there: cargo install --locked cargo-deny" >&2
	exit 1
else
	echo "==> cargo deny: not there, left to CI (cargo install --locked cargo-deny)"
fi
