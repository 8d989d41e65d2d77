#!/bin/bash
# Two ClickHouse servers, each a shard of cluster `two`, and the ZooKeeper they need; on the
# loopback of the fabric (fabric.sh), so that their ports are nobody else's. The first
# answers on http://127.0.0.1:8123 there.
#
# usage: clickhouse.sh up|down|stop NUMBER|start NUMBER     NUMBER of a shard: 1 or 2
. "$(dirname "$0")/settings.sh"

dir=$TESTBED/clickhouse
# For the background: the job is the program itself, so that its pid file names it.
in_fabric() { exec setsid "$HERE/fabric.sh" enter "$@"; }

write_server() { # NUMBER
  local n=$1 at=$dir/$1
  mkdir -p "$at"
  cat > "$at/config.xml" <<X
<yandex>
  <logger><level>warning</level><log>$at/log</log><errorlog>$at/errors</errorlog></logger>
  <listen_host>127.0.0.1</listen_host>
  <http_port>812$((2 + n))</http_port><tcp_port>900$n</tcp_port>
  <interserver_http_port>901$n</interserver_http_port><interserver_http_host>127.0.0.1</interserver_http_host>
  <path>$at/data/</path><tmp_path>$at/tmp/</tmp_path><users_config>$at/users.xml</users_config>
  <mark_cache_size>67108864</mark_cache_size>
  <default_profile>default</default_profile><default_database>default</default_database>
  <zookeeper><node><host>127.0.0.1</host><port>2181</port></node></zookeeper>
  <macros><shard>$n</shard><replica>r$n</replica></macros>
  <distributed_ddl><path>/clickhouse/task_queue/ddl</path></distributed_ddl>
  <remote_servers><two>
    <shard><internal_replication>true</internal_replication><replica><host>127.0.0.1</host><port>9001</port></replica></shard>
    <shard><internal_replication>true</internal_replication><replica><host>127.0.0.1</host><port>9002</port></replica></shard>
  </two></remote_servers>
</yandex>
X
  cat > "$at/users.xml" <<X
<yandex><profiles><default></default></profiles><quotas><default></default></quotas>
<users><default><password></password><networks><ip>127.0.0.1</ip></networks><profile>default</profile><quota>default</quota></default></users></yandex>
X
}

start() { # NUMBER
  # The lock of a server that was killed.
  rm -f "$dir/$1/data/status"
  in_fabric clickhouse-server "--config-file=$dir/$1/config.xml" > "$dir/$1/output" 2>&1 < /dev/null &
  echo $! > "$dir/$1.pid"
  wait_for "ClickHouse server $1" "$dir/$1.pid" clickhouse-server "$dir/$1/output" \
    "$HERE/fabric.sh" enter curl -sf "http://127.0.0.1:812$((2 + $1))/?query=SELECT%201"
}

start_zookeeper() {
  mkdir -p "$dir/zookeeper"
  printf 'tickTime=2000\ndataDir=%s\nclientPort=2181\nclientPortAddress=127.0.0.1\nadmin.enableServer=false\n4lw.commands.whitelist=srvr\n' \
    "$dir/zookeeper" > "$dir/zookeeper/zoo.cfg"
  in_fabric java -Xmx192m -cp /etc/zookeeper/conf:/usr/share/java/zookeeper.jar \
    org.apache.zookeeper.server.quorum.QuorumPeerMain "$dir/zookeeper/zoo.cfg" > "$dir/zookeeper/output" 2>&1 < /dev/null &
  echo $! > "$dir/zookeeper.pid"
  # ClickHouse 18.16 crashes on one that accepts connections and no sessions yet.
  wait_for ZooKeeper "$dir/zookeeper.pid" QuorumPeerMain "$dir/zookeeper/output" \
    "$HERE/fabric.sh" enter bash -c 'exec 3<>/dev/tcp/127.0.0.1/2181; printf srvr >&3; grep -q "Mode: standalone" <&3'
}

down() {
  local n
  for n in 1 2; do stop "$dir/$n.pid" clickhouse-server; done
  stop "$dir/zookeeper.pid" QuorumPeerMain
  rm -rf --one-file-system "$dir"
}

case ${1:-} in
  up) down; mkdir -p "$dir"; start_zookeeper; for n in 1 2; do write_server $n; start $n; done ;;
  # As a crash does.
  stop) alive "$dir/$2.pid" clickhouse-server && kill -9 "$(cat "$dir/$2.pid")" ;;
  start) start "$2" ;;
  down) down ;;
  *) fail "usage: clickhouse.sh up|down|stop NUMBER|start NUMBER" ;;
esac
