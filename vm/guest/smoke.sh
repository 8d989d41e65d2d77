#!/bin/sh
# One thing of each kind, by programs that are all busybox.
cat /etc/hosts >/dev/null
touch /data/made
rm /data/made
su nobody -c 'cat /vm/refused'
nc -l -p 4000 >/dev/null &
until nc 127.0.0.1 4000 </dev/null; do
    sleep 0.1
done
wait
