#!/bin/sh
# Opens the shop, lets a customer in, closes it.
set -e
cd /opt/ethogram-demo

close_shop() {
	for pid_file in web.pid db.pid; do
		[ ! -e "$pid_file" ] || kill "$(cat "$pid_file")"
	done
}
trap close_shop EXIT

# A server returns once it can be reached, and goes on in the background.
./db
./web
./customer
