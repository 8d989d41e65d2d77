#!/bin/bash
# Installs the Debian packages that the testbed needs and the machine lacks.
# usage: packages.sh
. "$(dirname "$0")/settings.sh"

# A file that only the package brings, so that a client without its daemon (or a tool from
# elsewhere) does not count.
needed=(
  /usr/bin/containerd            containerd
  /usr/sbin/runc                 runc
  /usr/lib/cni/bridge            containernetworking-plugins
  /usr/sbin/dockerd              docker.io
  /usr/bin/podman                podman
  /usr/bin/mmdebstrap            mmdebstrap
  /usr/share/keyrings/debian-archive-keyring.gpg debian-archive-keyring
  /usr/bin/jq                    jq
  /usr/bin/curl                  curl
  /usr/sbin/iptables             iptables
  /usr/sbin/clickhouse-server    clickhouse-server
  /usr/share/java/zookeeper.jar  libzookeeper-java
  /usr/bin/java                  default-jre-headless
)
missing=()
for ((i = 0; i < ${#needed[@]}; i += 2)); do
  [ -e "${needed[i]}" ] || missing+=("${needed[i + 1]}")
done
# Dynamic and static busybox share their path; images need the one without libraries.
[ "$(dpkg-query -W -f '${Status}' busybox-static 2>/dev/null)" = "install ok installed" ] || missing+=(busybox-static)
command -v ip > /dev/null || missing+=(iproute2)
command -v bpftool > /dev/null || [ -x /usr/sbin/bpftool ] || missing+=(bpftool)
command -v nsenter > /dev/null || missing+=(util-linux)
[ ${#missing[@]} = 0 ] && exit 0

command -v apt-get > /dev/null || fail "install these and try again: ${missing[*]}"
# The machine's own Docker and containerd services are not wanted, only their programs.
policy=/usr/sbin/policy-rc.d
if [ ! -e $policy ]; then
  printf '#!/bin/sh\nexit 101\n' > $policy; chmod +x $policy
  trap 'rm -f $policy' EXIT
fi
echo "testbed: installing ${missing[*]}" >&2
log=$(mktemp)
{ apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends "${missing[@]}"; } > "$log" 2>&1 ||
  { tail -n 20 "$log" >&2; fail "apt-get could not install ${missing[*]}"; }
rm -f "$log"
