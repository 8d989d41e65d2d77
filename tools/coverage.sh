#!/bin/bash
# Writes docs/coverage.md from what the guests' test of one kernel prints.
set -euo pipefail
cd "$(dirname "$0")/.."

readonly KERNEL=6.12 # has what the matrix needs, and both sets of hooks

log=$(mktemp)
trap 'rm -f "$log"' EXIT
vm/test.sh --quick $KERNEL | tee "$log"
{
	cat <<- END
		# What is seen, and what is not

		Every way of doing a thing that the \`matrix\` program (\`e2e/src/bin/matrix\`) knows, each done by a
		program of its own that states which rows must be there. *Seen*: exactly those rows, with their
		counts, and no others. Otherwise the ids are those of blind spots that \`ethogram doctor\` lists for
		these hooks; the tests fail if a row is missing that no listed blind spot hides, and if one is
		there that a listed one hides. By tracepoints it is done on every \`make test\`, by both sets of
		hooks on the kernels of \`make vm-test\` that do not preempt programs.

		Written by \`make coverage\`, on Debian's kernel $(sed -n 's/^Linux guest \([^ ]*\).*/\1/p' "$log" | head -n 1).

	END
	"${CARGO_TARGET_DIR:-target}/debug/matrix" table "$log"
} > docs/coverage.md
