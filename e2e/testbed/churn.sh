#!/bin/bash
# Runs many short-lived containers, each of which does one thing that no other does:
# number N reads /marks/N. They are made by runc alone, which is the fastest that a real
# container can come and go (some 50 ms each).
# usage: churn.sh COUNT   prints a line "ID PATH" for each container
. "$(dirname "$0")/settings.sh"

count=${1:-}
[[ $count =~ ^[1-9][0-9]*$ ]] || fail "usage: churn.sh COUNT"
parallel=2
churn=$TESTBED/churn
"$HERE/images.sh" busybox
rm -rf --one-file-system "$churn"
mkdir -p "$churn"/{rootfs,bundles,runc}
trap 'remove_cgroups /ethogram-churn/; remove_empty_cgroups ethogram-churn; rm -rf --one-file-system "$churn"' EXIT
tar -xOf "$IMAGES/busybox.tar" layer.tar | tar -C "$churn/rootfs" -x
mkdir "$churn/rootfs/marks"
for ((n = 0; n < count; n++)); do echo "$n" > "$churn/rootfs/marks/$n"; done

# Everything but a container's own command, id and cgroup. The network is the machine's,
# because none is needed and a namespace would cost more than all the rest.
runc spec --bundle "$churn"
template=$(jq -c --arg root "$churn/rootfs" '.root = {path: $root, readonly: true} | .process.terminal = false
  | del(.process.rlimits) | .linux.namespaces |= map(select(.type != "network" and .type != "cgroup"))' "$churn/config.json")
started=$(date +%s%N)
for ((n = 0; n < count; n++)); do
  id=$(printf '%s %s' "$started" "$n" | sha256sum | cut -d' ' -f1)
  mkdir "$churn/bundles/$id"
  config=${template/'"args":["sh"]'/'"args":["/bin/cat","/marks/'$n'"]'}
  printf '%s' "${config/'"linux":{'/'"linux":{"cgroupsPath":"/ethogram-churn/'$id'",'}" > "$churn/bundles/$id/config.json"
  echo "$id /marks/$n"
done | tee "$churn/list"
cut -d' ' -f1 "$churn/list" |
  xargs -P "$parallel" -I ID runc --root "$churn/runc" run --bundle "$churn/bundles/ID" ID > "$churn/said"
# Each said its number: that is the proof that each did its thing.
[ "$(sort -n "$churn/said")" = "$(seq 0 $((count - 1)))" ] || fail "not all of $count containers did what they should"
