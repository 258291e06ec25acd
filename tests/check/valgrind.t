#!/bin/bash
# Memcheck over what runs in a sensible time under it. Without io_uring: valgrind 3.19 does not know that io_uring_enter blocks, and a worker that waits in
# it keeps all other threads from running. --fair-sched: threads that spin must not keep the turn from the one they wait for.
export NO_URING=1 DIFF_OPS=${DIFF_OPS:-2000} WAL_SEEDS=${WAL_SEEDS:-2}
names=(test_base test_node test_node_damage test_store_map test_store_pages test_store_segments test_store_superblock test_wal_log test_wal_tail test_trees
       test_api_basic test_api_batch test_api_txn test_api_cursor)
[ $# -gt 0 ] && names=("$@")
memcheck=(valgrind -q --error-exitcode=99 --fair-sched=yes --leak-check=full --errors-for-leak-kinds=definite --num-callers=20)
number=0
echo "1..${#names[@]}"
for name in "${names[@]}"; do
    number=$((number + 1))
    begin=$SECONDS
    if timeout --kill-after=10 1200 "${memcheck[@]}" "build/tests/$name" > "build/valgrind-$name.out" 2>&1; then
        echo "ok $number - valgrind: $name, $((SECONDS - begin)) s"
    else
        echo "not ok $number - valgrind: $name"
        grep -vE '^ok ' "build/valgrind-$name.out" | head -n 40 | sed 's/^/# /'
    fi
done
