#!/bin/sh
# Three jobs onto the disk of a broker, and off it again, each acked once it was printed.
set -eu
export ZBROKER_URL="${ZBROKER_URL:-zb://localhost}"
stream="jobs-$$"

printf '%s\n' '{"job": 1}' '{"job": 2}' '{"job": 3}' | zbroker send "$stream" -
zbroker receive "$stream" --group workers --count 3 --timeout 20
zbroker stream delete "$stream" --yes  # ours alone
