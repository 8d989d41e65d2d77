#!/bin/bash
# Ends and removes all that the testbed started, also what a crashed run left. Built images
# are kept; --purge removes them too, and the testbed's whole directory.
# usage: down.sh [--purge]
. "$(dirname "$0")/settings.sh"

for script in docker podman; do "$HERE/$script.sh" down; done
for node in "$TESTBED"/nodes/*/; do
  [ -d "$node" ] && "$HERE/node.sh" down "$(basename "$node")"
done
"$HERE/clickhouse.sh" down
"$HERE/fabric.sh" down
# Runs of churn.sh that were killed.
remove_cgroups /ethogram-churn/
remove_empty_cgroups ethogram-churn
rm -rf --one-file-system "$TESTBED/churn"
if [ "${1:-}" = --purge ]; then rm -rf --one-file-system "$TESTBED"; fi
