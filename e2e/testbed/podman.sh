#!/bin/bash
# Podman with storage of the testbed's own.
# usage: podman.sh up | down | run ARGS...   (run: `podman ARGS...` on that storage)
. "$(dirname "$0")/settings.sh"

engine=$TESTBED/podman
storage=$engine/storage
export CONTAINERS_CONF=$engine/containers.conf CONTAINERS_STORAGE_CONF=$engine/storage.conf

write_config() {
  mkdir -p "$engine"
  # runc, because crun refuses hybrid cgroups; low limits, because raising them takes
  # CAP_SYS_RESOURCE, which a machine in a sandbox lacks; no network but loopback.
  cat > "$CONTAINERS_CONF" <<T
[containers]
default_ulimits = ["nofile=4096:4096", "nproc=4096:4096"]
netns = "none"
log_driver = "k8s-file"
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
tmp_dir = "$engine/tmp"
lock_type = "file"
T
  cat > "$CONTAINERS_STORAGE_CONF" <<T
[storage]
driver = "overlay"
graphroot = "$storage"
runroot = "$engine/run"
T
}

up() {
  write_config
  "$HERE/images.sh" busybox
  podman image exists localhost/busybox:1 || podman load -q -i "$IMAGES/busybox.tar" > /dev/null
}

down() {
  # Podman has no daemon, so what a crash left is as well known to it as the rest.
  if [ -e "$CONTAINERS_CONF" ]; then podman rm --all --force --time 0 > /dev/null; fi
  unmount_below "$engine"
  rm -rf --one-file-system "$engine"
  remove_empty_cgroups libpod_parent/conmon libpod_parent
}

case ${1:-} in
  up | down) "$1" ;;
  run) [ -e "$CONTAINERS_CONF" ] || fail "podman is not up"; shift; exec podman "$@" ;;
  *) fail "usage: podman.sh up | down | run ARGS..." ;;
esac
