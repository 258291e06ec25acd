#!/bin/bash
# The simulator: crashes and faults. CRASH_STATES: how many states to look at.
out=build/sim/tests/crash_sim
states=${CRASH_STATES:-2000}
echo 1..2
run() {
    local number=$1 name=$2; shift 2
    if "$@" > "build/sim/$number.out" 2>&1; then echo "ok $number - $name"
    else echo "not ok $number - $name"; tail -n 20 "build/sim/$number.out" | sed 's/^/# /'; fi
}
run 1 "$states crash states are sound" $out --seeds 1..1000000 --states "$states"
run 2 "failing disks: errors or right data" $out --faults --seeds 1..1000000 --states $((states / 5))
