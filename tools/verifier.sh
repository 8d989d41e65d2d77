#!/bin/bash
# Holds the BPF verifier's instruction counts against tools/verifier-baseline.txt. The
# verifier gives up at a million, and a harmless-looking change can multiply the work.
# usage: verifier.sh check|update
set -euo pipefail
cd "$(dirname "$0")/.."
. tools/root-runner.sh

baseline=tools/verifier-baseline.txt
readonly INSTRUCTIONS_MAX=800000 # leaves room for kernels whose verifier works harder
readonly GROWTH_PERCENT_MAX=25

counts=$(cargo run --quiet --package ethogram-sensor --example verifier)
[ -n "$counts" ] || { echo "verifier: no program was loaded" >&2; exit 1; }

case ${1:-} in
update)
	{
		echo "# Instructions the verifier processed per program, on kernel $(uname -r)."
		echo "# Written by: make verifier-baseline"
		echo "$counts"
	} > $baseline
	cat $baseline
	;;
check)
	awk -v max=$INSTRUCTIONS_MAX -v growth=$GROWTH_PERCENT_MAX '
		/^#/ { next }
		NR == FNR { known[$1] = $2; next }
		!($1 in known) { printf "verifier: %s is not in the baseline: make verifier-baseline\n", $1; bad = 1; next }
		$2 > max { printf "verifier: %s takes %d instructions, more than %d\n", $1, $2, max; bad = 1 }
		$2 * 100 > known[$1] * (100 + growth) {
			printf "verifier: %s takes %d instructions, %d before; if that is meant: make verifier-baseline\n", $1, $2, known[$1]
			bad = 1
		}
		{ printf "verifier: %-18s %7d (baseline %d)\n", $1, $2, known[$1] }
		END { exit bad }
	' $baseline - <<< "$counts"
	;;
*)
	echo "usage: $0 check|update" >&2
	exit 2
	;;
esac
