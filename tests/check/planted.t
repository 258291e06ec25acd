#!/bin/bash
# Whether planted bugs are found: the tests are tested. Many seeds with few crash states each, since most bugs show in a run, or in many of its states.
echo 1..2
run() {
    local number=$1 name=$2; shift 2
    if "$@" > "build/sim/planted.$number.out" 2>&1; then echo "ok $number - $name"
    else echo "not ok $number - $name"; grep -A1 "^not ok" "build/sim/planted.$number.out" | tail -n 20 | sed 's/^/# /'; fi
}
run 1 "every planted bug is found" build/sim/tests/crash_sim --planted all --per-seed 6 --states 10000
run 2 "so are those of the filter of all keys" build/sim/tests/test_engine_key_filter
