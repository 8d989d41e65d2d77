#!/bin/bash
# What watching costs on this machine, into docs/benchmarks.md. Needs root; about 10 minutes.
# usage: bench/run.sh [options of `ethogram-bench price`, such as --rounds 11]
set -euo pipefail
cd "$(dirname "$0")/.."

[ "$(id -u)" = 0 ] || { echo "bench: run it as root: it loads BPF programs" >&2; exit 1; }
for tool in bpftrace strace; do
	command -v $tool > /dev/null || { echo "bench: apt-get install bpftrace strace, for the comparison" >&2; exit 1; }
done

target=${CARGO_TARGET_DIR:-target}
cargo build --release --package ethogram --package ethogram-bench
table=$(mktemp)
trap 'rm -f "$table"' EXIT
"$target/release/ethogram-bench" price --ethogram "$target/release/ethogram" --markdown "$table" "$@"
{
	sed '/^<!-- price -->$/q' docs/benchmarks.md
	echo
	echo "Measured $(date -u +%F) with \`make bench\`, $("$target/release/ethogram" --version)."
	echo
	cat "$table"
} > "$table.new"
mv "$table.new" docs/benchmarks.md
