#!/bin/bash
# A Docker engine of the testbed's own: its own containerd, data, socket and network
# namespace, so that the machine's Docker (if it has one) knows nothing of it.
# usage: docker.sh up | down
. "$(dirname "$0")/settings.sh"

engine=$TESTBED/docker
data=$TESTBED/root/docker
socket=$engine/docker.sock
netns=ethogram-docker
export DOCKER_HOST=unix://$socket

up() {
  if alive "$engine/dockerd.pid" "$engine"; then return; fi
  down # what a crash may have left
  mkdir -p "$engine" "$data"
  ip netns add "$netns"
  ip -n "$netns" link set lo up
  cat > "$engine/containerd.toml" <<T
version = 2
root = "$data/containerd"
state = "$engine/state"
disabled_plugins = ["io.containerd.grpc.v1.cri"]
[grpc]
  address = "$engine/containerd.sock"
[ttrpc]
  address = "$engine/containerd.sock.ttrpc"
[plugins."io.containerd.internal.v1.opt"]
  path = "$engine/opt"
T
  # One mount namespace for both: dockerd mounts what containerd's shims run in.
  setsid nsenter --net="/run/netns/$netns" unshare --mount --propagation private \
    containerd -c "$engine/containerd.toml" > "$engine/containerd.log" 2>&1 < /dev/null &
  echo $! > "$engine/containerd.pid"
  wait_for "Docker's containerd" "$engine/containerd.pid" "$engine" "$engine/containerd.log" \
    ctr -a "$engine/containerd.sock" version
  echo '{}' > "$engine/daemon.json" # not the machine's
  # No packet filter rules: containers talk to each other over the bridge, and there is
  # nothing else to reach.
  setsid nsenter --mount="/proc/$(cat "$engine/containerd.pid")/ns/mnt" --net="/run/netns/$netns" \
    /usr/sbin/dockerd --containerd "$engine/containerd.sock" --host "$DOCKER_HOST" --pidfile "$engine/own.pid" \
    --data-root "$data/data" --exec-root "$engine/exec" --config-file "$engine/daemon.json" \
    --iptables=false --ip-masq=false > "$engine/dockerd.log" 2>&1 < /dev/null &
  echo $! > "$engine/dockerd.pid"
  wait_for dockerd "$engine/dockerd.pid" "$engine" "$engine/dockerd.log" /usr/bin/docker version
  "$HERE/images.sh" busybox
  if ! [ "$data/imported" -nt "$IMAGES/busybox.tar" ]; then
    /usr/bin/docker load -q -i "$IMAGES/busybox.tar" > /dev/null
    touch "$data/imported"
  fi
}

down() {
  local container
  for container in "$data"/data/containers/*/; do
    [ -d "$container" ] && remove_cgroups "docker/$(basename "$container")"
  done
  stop "$engine/dockerd.pid" "$engine"
  stop_shims "$engine/containerd.sock" "$engine/state"
  stop "$engine/containerd.pid" "$engine"
  unmount_below "$engine"
  unmount_below "$data"
  if [ -e "/run/netns/$netns" ]; then ip netns del "$netns"; fi
  rm -rf --one-file-system "$engine" "$data/data/containers" "$data/data/network"
  remove_empty_cgroups docker
}

case ${1:-} in
  up | down) "$1" ;;
  *) fail "usage: docker.sh up | down" ;;
esac
