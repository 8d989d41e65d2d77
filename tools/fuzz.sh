#!/bin/bash
# Feeds every decoder with bytes that libFuzzer makes up from the seeds, and fails at the first
# input that one of them does not bear. What it learned stays in fuzz/corpus.
# usage: fuzz.sh SECONDS TARGET_DIR [TARGET...]
set -euo pipefail
cd "$(dirname "$0")/../fuzz"

if ! cargo fuzz --version > /dev/null 2>&1; then
	echo "fuzz: cargo-fuzz is not there: cargo install --locked cargo-fuzz" >&2
	exit 1
fi
seconds=$1 target_dir=$2
shift 2
targets=("$@")
((${#targets[@]})) || mapfile -t targets < <(cargo fuzz list)

# The sanitizers need a nightly compiler and look after unsafe code, of which there is next to
# none behind these decoders. Panics, overflows and endless loops are found without them.
for target in "${targets[@]}"; do
	echo "==> $target"
	mkdir -p "corpus/$target"
	cargo fuzz run --sanitizer none --target-dir "$target_dir" "$target" \
		"corpus/$target" "seeds/$target" -- -max_total_time="$seconds" -timeout=10
done
