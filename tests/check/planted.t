#!/bin/bash
# Whether planted bugs are found: the tests are tested. Many seeds with few crash states each, since most bugs show in a run, or in many of its states.
# With CHECK_LONG=1 those, too, that one run in hundreds meets.
echo 1..2
run() {
    local number=$1 name=$2; shift 2
    if "$@" > "build/sim/planted.$number.out" 2>&1; then echo "ok $number - $name"
    else echo "not ok $number - $name"; grep -A1 "^not ok" "build/sim/planted.$number.out" | tail -n 20 | sed 's/^/# /'; fi
}
which=$([ -n "${CHECK_LONG:-}" ] && echo all || echo often)
run 1 "planted bugs are found: $which" build/sim/tests/crash_sim --planted "$which" --per-seed 6 --states 10000
run 2 "so are those of the filter of all keys" build/sim/tests/test_engine_key_filter
