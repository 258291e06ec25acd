#!/bin/bash
# The suite with the limits that users get, under the address and undefined-behaviour sanitizers: for `make sanitizers`.
. tests/check/variant
cd build/asan/tests && names=$(ls | grep -vE '^(crash_sim|test_every_byte)$') && cd - > /dev/null
export DIFF_OPS=${DIFF_OPS:-20000} ISOLATION_TRANSACTIONS=${ISOLATION_TRANSACTIONS:-4000}
run_variant asan $names
