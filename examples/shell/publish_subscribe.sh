#!/bin/sh
# A subscriber, and a publisher that waits for it.
set -eu
export ZBROKER_URL="${ZBROKER_URL:-tcp://127.0.0.1:7712}"

zbroker sub 'orders.>' --count 2 --timeout 20 &
printf '%s\n' '{"order": 1}' '{"order": 2}' | zbroker pub orders.eu - --wait-for-subscribers 1 --timeout 10
wait
