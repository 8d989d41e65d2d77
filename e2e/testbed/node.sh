#!/bin/bash
# A Kubernetes node without Kubernetes: containerd with its CRI plugin in a network
# namespace (loopback and the pods' bridge only, so that nothing leaves the machine) and a
# mount namespace of its own.
#
# usage: node.sh up NAME LAYOUT NAMES [IMAGE...]
#          LAYOUT host: cgroups as the machine has them; v1: containers are in v1
#          hierarchies only; v2: in cgroup2 only, and the node sees nothing else
#          NAMES cgroupfs (kubepods/burstable/podUID/ID) or systemd (kubepods.slice/...scope)
#          IMAGE of images.sh, beside pause and busybox
#          ETHOGRAM_POD_SUBNET: the pods' addresses, where nodes are joined (fabric.sh)
#        node.sh down NAME
#        node.sh enter NAME CMD...   run a command as a process of the node (its mounts and network)
. "$(dirname "$0")/settings.sh"

verb=${1:-} name=${2:-}
[ -n "$verb" ] && [ -n "$name" ] || fail "usage: node.sh up|down|enter NAME ..."
node=$TESTBED/nodes/$name
root=$TESTBED/root/$name
socket=$node/containerd.sock
config=$node/containerd.toml
pidfile=$node/containerd.pid
log=$node/containerd.log
netns=ethogram-$name

# The mount namespace's view of the cgroup hierarchies.
layout_view() { # LAYOUT
  case $1 in
    host) echo : ;;
    # The kernel keeps a v2 hierarchy in any case; a machine of the v1 kind does not mount it.
    v1) [ -d /sys/fs/cgroup/memory ] || fail "layout v1 needs a machine whose memory controller is in a v1 hierarchy (kernel option systemd.unified_cgroup_hierarchy=0)"
        if [ -d /sys/fs/cgroup/unified ]; then echo 'mount -t tmpfs none /sys/fs/cgroup/unified'; else echo :; fi ;;
    v2) if [ -d /sys/fs/cgroup/unified ]; then echo 'mount --bind /sys/fs/cgroup/unified /sys/fs/cgroup'; else echo :; fi ;;
    *) fail "no layout is called $1: host, v1, v2" ;;
  esac
}

# runc, or runc behind an edit of what it is asked for:
# - v2 on a machine whose controllers are bound to v1: limits cannot be set, so they go
# - systemd names without a systemd: runc's systemd driver would make this scope of
#   "slice:prefix:id" by asking systemd; the plain driver is given the same path instead
write_runc() { # LAYOUT NAMES
  local filter=.
  if [ "$1" = v2 ] && [ ! -e /sys/fs/cgroup/cgroup.controllers ]; then filter+=' | .linux.resources |= {devices: .devices}'; fi
  case $2 in
    cgroupfs) ;;
    systemd) filter+=' | .linux.cgroupsPath |= (split(":") | if length == 3 then
        (.[0] | rtrimstr(".slice") | split("-")) as $parts
        | ([range(1; $parts | length + 1) | ($parts[:.] | join("-")) + ".slice"] | join("/")) as $slices
        | "/\($slices)/\(.[1])-\(.[2]).scope" else join(":") end)' ;;
    *) fail "no cgroup names are called $2: cgroupfs, systemd" ;;
  esac
  cat > "$node/runc" <<R
#!/bin/bash
create=0 bundle=
while IFS= read -r -d '' arg; do
  [ "\$previous" = --bundle ] && bundle=\$arg
  [ "\$arg" = create ] && create=1
  previous=\$arg
done < <(printf '%s\0' "\$@")
if [ \$create = 1 ]; then
  edited=\$(jq -c '$filter' "\$bundle/config.json") && printf '%s' "\$edited" > "\$bundle/config.json"
fi
exec /usr/sbin/runc "\$@"
R
  chmod +x "$node/runc"
}

write_config() { # RUNC
  cat > "$config" <<T
version = 2
root = "$root"
state = "$node/state"
[grpc]
  address = "$socket"
[ttrpc]
  address = "$socket.ttrpc"
[plugins."io.containerd.internal.v1.opt"]
  path = "$node/opt"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "localhost/pause:1"
  # Without CAP_SYS_RESOURCE (a machine in a sandbox) the sandbox's -998 would be refused.
  restrict_oom_score_adj = true
  netns_mounts_under_state_dir = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "$node/cni"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "overlayfs"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
        BinaryName = "$1"
        Root = "$node/runc-state"
T
  mkdir -p "$node/cni"
  cat > "$node/cni/10-pods.conflist" <<T
{"cniVersion": "0.4.0", "name": "pods", "plugins": [
  {"type": "bridge", "bridge": "cni0", "isGateway": true, "hairpinMode": true,
   "ipam": {"type": "host-local", "dataDir": "$node/ipam", "ranges": [[{"subnet": "${ETHOGRAM_POD_SUBNET:-10.89.7.0/24}"}]], "routes": [{"dst": "0.0.0.0/0"}]}}]}
T
}

# Imports what is not there yet, or was built anew since.
import_images() { # IMAGE...
  local image
  "$HERE/images.sh" "$@"
  for image in "$@"; do
    [ "$root/imported-$image" -nt "$IMAGES/$image.tar" ] && continue
    ctr -a "$socket" -n k8s.io images import "$IMAGES/$image.tar" > /dev/null
    touch "$root/imported-$image"
  done
}

up() { # LAYOUT NAMES IMAGE...
  local mode="$1 $2" view runc=/usr/sbin/runc
  if alive "$pidfile" "$config"; then
    [ "$(cat "$node/mode")" = "$mode" ] || fail "node $name runs with other cgroups ($(cat "$node/mode")): bring it down first"
    import_images pause busybox "${@:3}"
    return
  fi
  down # what a crash may have left
  view=$(layout_view "$1")
  mkdir -p "$node" "$root"
  if [ "$mode" != "host cgroupfs" ]; then write_runc "$1" "$2"; runc=$node/runc; fi
  write_config "$runc"
  echo "$mode" > "$node/mode"
  ip netns add "$netns"
  ip -n "$netns" link set lo up
  setsid nsenter --net="/run/netns/$netns" unshare --mount --propagation private \
    sh -c "$view"' && exec "$@"' sh containerd -c "$config" > "$log" 2>&1 < /dev/null &
  echo $! > "$pidfile"
  wait_for "containerd of node $name" "$pidfile" "$config" "$log" ctr -a "$socket" version
  import_images pause busybox "${@:3}"
}

down() {
  local uid
  # Pods by the list of those who made them: `kubepods` may hold others' as well.
  if [ -s "$node/pods" ]; then
    while read -r uid; do remove_cgroups "pod$uid"; remove_cgroups "pod${uid//-/_}"; done < "$node/pods"
  fi
  stop_shims "$socket" "$node/state"
  stop "$pidfile" "$config"
  unmount_below "$node"
  if [ -e "/run/netns/$netns" ]; then ip netns del "$netns"; fi
  rm -rf --one-file-system "$node"
  # A node of several (up_joined) has a cgroup of its own.
  remove_empty_cgroups {"ethogram-$name/",}kubepods{/burstable,} "ethogram-$name" kubepods.slice/kubepods-burstable.slice kubepods.slice
}

case $verb in
  up) [ $# -ge 4 ] || fail "usage: node.sh up NAME LAYOUT NAMES [IMAGE...]"; up "${@:3}" ;;
  down) down ;;
  enter) alive "$pidfile" "$config" || fail "node $name is not up"
         shift 2; exec nsenter --mount="/proc/$(cat "$pidfile")/ns/mnt" --net="/run/netns/$netns" "$@" ;;
  *) fail "usage: node.sh up|down|enter NAME ..." ;;
esac
