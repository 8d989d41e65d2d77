#!/bin/bash
# A network between nodes: a network namespace with a bridge, a line from it to each node,
# and routes to each node's pods. 10.90.0.254 is the fabric itself, where a collector may
# listen; node NUMBER is 10.90.0.NUMBER.
#
# usage: fabric.sh up
#        fabric.sh join NAME NUMBER SUBNET   connect a node whose pods have a subnet
#        fabric.sh route NAME SUBNET VIA     tell a node the way to another's pods
#        fabric.sh service NAME CLUSTERIP PORT POD-IP   what kube-proxy does for a service
#        fabric.sh cut NAME | mend NAME      take a node's line away, and give it back
#        fabric.sh enter CMD...              run a command in the fabric
#        fabric.sh down
. "$(dirname "$0")/settings.sh"

netns=ethogram-fabric

up() {
  down # what a crash may have left
  ip netns add "$netns"
  ip -n "$netns" link set lo up
  ip -n "$netns" link add nodes type bridge
  ip -n "$netns" addr add 10.90.0.254/24 dev nodes
  ip -n "$netns" link set nodes up
}

join() { # NAME NUMBER SUBNET
  ip -n "$netns" link add "node$2" type veth peer name uplink netns "ethogram-$1"
  ip -n "$netns" link set "node$2" master nodes up
  ip -n "ethogram-$1" addr add "10.90.0.$2/24" dev uplink
  ip -n "ethogram-$1" link set uplink up
  # A namespace's own setting; the machine's stays as it is.
  ip netns exec "ethogram-$1" sh -c 'echo 1 > /proc/sys/net/ipv4/ip_forward'
  ip -n "$netns" route add "$3" via "10.90.0.$2"
}

service() { # NAME CLUSTERIP PORT POD-IP
  ip netns exec "ethogram-$1" iptables -w -t nat -A PREROUTING -d "$2" -p tcp --dport "$3" -j DNAT --to-destination "$4:$3"
}

line_of() { # NAME
  local index
  index=$(ip -n "ethogram-$1" -o link show uplink | sed -n 's/^[0-9]*: uplink@if\([0-9]*\).*/\1/p')
  ip -n "$netns" -o link | sed -n "s/^$index: \\([^@:]*\\).*/\\1/p"
}

down() {
  if [ -e "/run/netns/$netns" ]; then ip netns del "$netns"; fi
}

case ${1:-} in
  up) up ;;
  join) join "${@:2}" ;;
  route) ip -n "ethogram-$2" route add "$3" via "$4" ;;
  service) service "${@:2}" ;;
  cut) ip -n "$netns" link set "$(line_of "$2")" down ;;
  mend) ip -n "$netns" link set "$(line_of "$2")" up ;;
  enter) exec ip netns exec "$netns" "${@:2}" ;;
  down) down ;;
  *) fail "usage: fabric.sh up|join|route|service|cut|mend|enter|down ..." ;;
esac
