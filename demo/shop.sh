#!/bin/sh
# Opens the shop, lets a customer in, closes it.
set -e
cd /opt/ethogram-demo
# A server returns once it can be reached, and goes on in the background.
./db
./web
trap 'kill "$(cat web.pid)" "$(cat db.pid)"' EXIT
./customer
