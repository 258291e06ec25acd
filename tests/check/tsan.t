#!/bin/bash
# What has threads, under the thread sanitizer. Of the two that would take minutes as much as reaches every mode and case.
. tests/check/variant
export HERMITAGE_MERGES=${HERMITAGE_MERGES:-5} ISOLATION_TRANSACTIONS=${ISOLATION_TRANSACTIONS:-2000}
# These three take minutes by themselves, and what they have threads for the others do as well.
long=${CHECK_LONG:+test_api_cursor test_wal_log test_engine_spills}
names="$long test_api_absent test_api_records test_api_pending test_api_threads test_api_crowd test_kernel_io test_kernel_io_rings test_kernel_io_readers test_kernel_io_mutex test_store_segments
    test_btree_filters test_btree_records test_txn_versions_threads test_txn_snapshots test_txn_locks_threads test_api_atomic test_api_deadlock test_api_txn_waiting test_api_txn_misuse test_api_bucket_drop test_api_key_filter
    test_api_queue_ends test_api_hermitage test_isolation"
# `make sanitizers`: everything that was built, but for what has one thread and takes long
[ -n "${SANITIZE_ALL:-}" ] && names=$(cd build/tsan/tests && ls | grep -vE '^(crash_sim|test_every_byte|test_node)$')
# for who builds them
[ "${1:-}" = --names ] && { echo $names; exit; }
run_variant tsan $names
