#!/bin/sh
# A service that is a command, and who asks it.
set -eu
export ZBROKER_URL="${ZBROKER_URL:-tcp://127.0.0.1:7711}"

zbroker reply upper --command 'tr a-z A-Z' --count 1 --timeout 20 &
zbroker request upper '"good morning"' --timeout 10 --idempotent
wait
