/*
 * Bugs planted on purpose, to measure the tests by. In a build with -DRW_PLANTED_BUGS the one that rw_planted names is active; in any other
 * build RW_PLANTED is 0 and nothing of them is left. Each name stands where its step does, most in one place of the engine.
 */
#ifndef RW_PLANTED_H
#define RW_PLANTED_H

/* name, what must find it (crashes, faults, isolation: crash_sim, faults with failing machines, isolation by its history checker; keys: test_engine_key_filter), what goes wrong */
#define RW_PLANTED_MAP(X)                                                                                          \
    X(skip_log_sync, crashes, "a batch of the log counts as durable without its sync")                             \
    X(skip_log_dsync, crashes, "a batch of the log counts as durable though its writes lack the flag")               \
    X(ack_before_sync, crashes, "a commit is acknowledged before it is durable")                                   \
    X(lose_async_flush, crashes, "rw_flush returns at once")                                                       \
    X(drop_log_block, crashes, "recovery takes a block with little in it for torn")                       \
    X(skip_range_replay, crashes, "recovery leaves out deletions of ranges")                                       \
    X(skip_data_sync, crashes, "a superblock is published over pages that were not synced")                        \
    X(publish_early, crashes, "a superblock is published before the log is durable as far as the image goes")      \
    X(reuse_block_early, crashes, "blocks are free again before the image that names them is gone")                \
    X(start_replay_late, crashes, "recovery replays from the image of some partition, not from the oldest")        \
    X(forget_extent_sync, crashes, "the log names an extent that was not synced")                                  \
    X(lose_one_of_batch, crashes, "a log record lacks the last write of its batch")                                \
    X(complete_before_durable, crashes, "a queue's logged operations are complete before the log is durable")      \
    X(watch_too_late, crashes, "what a watcher wants of the log is told after it looked")                          \
    X(raise_before_put, crashes, "a mailbox is raised before the fetch is in it")                                  \
    X(rest_before_clear, crashes, "a queue's event is said to rest before it is cleared")                          \
    X(hang_in_unchecked, crashes, "a page that was read is hung in though its parent names another place by now")  \
    X(cancelled_and_done, crashes, "a cancelled operation is carried out all the same")                            \
    X(trust_hint, crashes, "a hint's slot is believed without a look at its key")                                  \
    X(hint_of_freed_page, crashes, "a hint's page is read though its frame is free")                               \
    X(trust_neighbour, crashes, "a walk takes the leaf that was the next one for the next one")                    \
    X(key_filter_lacks_key, keys, "a new key is not noted in the filter of all keys")                           \
    X(learn_at_once, keys, "keys are collected before all writers note what they add")                          \
    X(complete_at_once, keys, "the filter of all keys is complete before the commits that the walk has met are")       \
    X(deny_from_memory, keys, "the filter of all keys is believed though it was emptied meanwhile")             \
    X(filter_lacks_key, crashes, "a leaf's filter lacks its last key")                                             \
    X(filter_of_old_image, crashes, "a leaf's filter is believed for another image at the same place")             \
    X(pending_lost, crashes, "a leaf is read without the writes that wait for it")                                  \
    X(pending_unseen, crashes, "a get does not ask what waits for a leaf")                                          \
    X(pending_held_by_nothing, crashes, "an image is taken to hold what still waits")                               \
    X(pending_passed_late, crashes, "an image is taken to hold what came to wait while it was being flushed")       \
    X(record_of_old_image, crashes, "a record is believed of another image of its leaf")                            \
    X(record_keeps_value, crashes, "a record goes over to its leaf's new image with its old value")                \
    X(reuse_extent_early, crashes, "a large value's blocks are free again though the log will be replayed from before it")  \
    X(pending_stays_behind, crashes, "what waits stays with the left half of a partition that is cut")              \
    X(spill_unseen, crashes, "a get does not ask the spills of a leaf")                                              \
    X(spill_lost, crashes, "a leaf is read without what spills hold for it")                                         \
    X(spill_made_again, crashes, "a leaf gets what a spill holds for it though it has it, and newer things")         \
    X(spill_unnamed, crashes, "a superblock does not name a partition's newest spill")                               \
    X(spill_dropped_early, crashes, "spills go though a leaf lacks what they hold")                                  \
    X(filter_hides_old, isolation, "a snapshot takes a filter's word for a key that was there in its time")        \
    X(ignore_page_checksum, faults, "a page's checksum is not compared")                                           \
    X(ignore_write_error, faults, "a failed write of the log counts as done")                                      \
    X(retry_failed_sync, faults, "a failed sync of the log is tried again and then believed")                      \
    X(snapshot_too_new, isolation, "a snapshot's moment lies beyond a commit that is still being applied")         \
    X(visible_in_pieces, isolation, "a commit's operations become visible one by one")                             \
    X(forget_version, isolation, "what a commit replaces is not kept for snapshots")                               \
    X(trim_too_early, isolation, "versions are dropped that the oldest snapshot still reads")                      \
    X(miss_write_conflict, isolation, "a transaction's writes are not validated")                                  \
    X(miss_read_conflict, isolation, "keys that a serializable transaction read are not validated")                \
    X(miss_phantom, isolation, "ranges that a serializable transaction read are not validated")                    \
    X(lose_range_lock, isolation, "locks on ranges are not taken")                                                 \
    X(lose_absent_lock, isolation, "a pessimistic read of an absent key takes no lock")                            \
    X(write_through_locks, isolation, "single writes do not look at locks")                                        \
    X(release_locks_early, isolation, "locks are given back before the commit")                                    \
    X(read_before_token, isolation, "a lock's holder reads before writers that missed its lock are done")          \
    X(forget_claims, isolation, "versions are dropped that a snapshot which is being begun will read")             \
    X(trust_old_values, isolation, "what a commit keeps for readers is believed though it ended meanwhile")        \
    X(trust_rewritten, isolation, "a value is believed that a commit changed again, and ended, meanwhile")        \
    X(trust_old_leaf, isolation, "a pessimistic cursor keeps its copy of a leaf that has changed")

/* Those of crash_sim that one run in hundreds meets: a minute's work each. */
#define RW_PLANTED_SELDOM_MAP(X) X(lose_async_flush) X(watch_too_late) X(reuse_extent_early) X(retry_failed_sync) X(forget_claims) X(trust_old_values) X(record_keeps_value) X(pending_passed_late) \
    X(spill_unseen) X(spill_made_again) X(spill_dropped_early)

#ifdef RW_PLANTED_BUGS
enum {
    RW_PLANTED_none,
#define RW_PLANTED_ENUM(name, kind, text) RW_PLANTED_##name,
    RW_PLANTED_MAP(RW_PLANTED_ENUM)
#undef RW_PLANTED_ENUM
};
extern int rw_planted;    /* set before a database is opened */
#define RW_PLANTED(name) (__builtin_expect(rw_planted == RW_PLANTED_##name, 0))
#else
#define RW_PLANTED(name) 0
#endif

#endif
