/* Operations through a queue: several under way, reaped in any order, waited for in all ways that there are, some cancelled, some left to the queue's close. */
#include <stdlib.h>

#include "tests/crash/crash_queue.h"

#define PATIENCE_NS ((int64_t)300000000000)    /* of virtual time: nothing that is under way takes so long */
#define TURNS_MAX 30u
#define IDLE_LOOKS 100u          /* each some milliseconds after the one before: a thread that is about to raise it may have lost its turn */

/* ---- submitting -------------------------------------------------------------------------------------------------- */

/* Commits of a group write different slots; when none is under way the next group begins. */
static void group_end(queue_session *s)
{
    if (s->under_way > 0 || s->group_commits == 0) return;
    crash_group_end(s->c->history);
    crash_group_begin(s->c->history);
    s->group_commits = 0;
}

static void touched_forget(queue_session *s)
{
    if (s->under_way == 0) memset(s->touched, 0, s->c->run->plan.slots * sizeof *s->touched);
}

static void submit_some(queue_session *s)
{
    rw_op *ops[QUEUE_DEPTH_MAX];
    unsigned count = 0;
    uint64_t wanted = 1 + client_draw(s->c, 4);
    for (unsigned i = 0; i < s->depth && count < wanted; i++) {
        queue_item *item = &s->items[i];
        if (item->is_used || s->group_commits == CRASH_GROUP_MAX || !queue_item_make(s, item)) continue;
        item->under_way = true;
        ops[count++] = &item->op;
    }
    if (count == 0) return;
    s->under_way += count;
    crash_met_all.queue_operations += count;
    int rc = rw_submit(s->queue, ops, count);
    if (rc != 0) crash_fail("submit of %u operations, %u are under way: %s", count, s->under_way, rw_last_error(s->c->run->db));
    if (client_draw(s->c, 8) == 0 && rw_submit(s->queue, ops, 1) != RW_EBUSY) crash_fail("an operation is submitted twice");
}

static void cancel_one(queue_session *s)
{
    queue_item *item = &s->items[client_draw(s->c, s->depth)];
    if (!item->under_way) return;
    int rc = rw_cancel(s->queue, &item->op);
    if (rc != 0 && rc != RW_EBUSY) crash_fail("cancel: %s", rw_last_error(s->c->run->db));
    crash_met_all.queue_cancelled += rc == 0 && !item->is_cancelled;
    item->is_cancelled = item->is_cancelled || rc == 0;
}

/* ---- reaping ----------------------------------------------------------------------------------------------------- */

static void reaped(queue_session *s, rw_op **done, int count)
{
    for (int i = 0; i < count; i++) {
        queue_item *item = done[i]->context;
        if (!item->under_way) crash_fail("an operation of kind %d is reaped twice", (int)item->op.kind);
        item->under_way = false;
        s->under_way--;
        queue_item_over(s, item);
    }
    group_end(s);
    touched_forget(s);
}

static void in_time(const queue_session *s, uint64_t begun_ns, const char *what)
{
    if (sim_world_now_ns(s->c->run->world) - begun_ns >= (uint64_t)PATIENCE_NS * 9 / 10) crash_fail("%s: %u operations are under way, and nothing comes back", what, s->under_way);
}

static void reap(queue_session *s, unsigned min, unsigned max, int64_t timeout_ns)
{
    rw_op *done[QUEUE_DEPTH_MAX];
    uint64_t begun = sim_world_now_ns(s->c->run->world);
    unsigned least = timeout_ns == PATIENCE_NS ? RW_MIN(min, s->under_way) : 0;
    int count = rw_reap(s->queue, done, min, max, timeout_ns);
    if (count < (int)least || count > (int)max) crash_fail("reap of %u to %u operations, %u under way: %d", min, max, s->under_way, count);
    if (timeout_ns == PATIENCE_NS) in_time(s, begun, "reap");
    reaped(s, done, count);
}

static void wait_and_reap(queue_session *s)
{
    uint64_t begun = sim_world_now_ns(s->c->run->world);
    unsigned before = s->under_way;
    while (s->under_way == before) {
        if (!sim_descriptor_wait(s->c->run->k, s->descriptor, PATIENCE_NS)) crash_fail("%u operations are under way, and the descriptor is not readable", before);
        in_time(s, begun, "the descriptor");
        reap(s, 0, 1 + (unsigned)client_draw(s->c, QUEUE_DEPTH_MAX), 0);
    }
}

static void reap_some(queue_session *s)
{
    client *c = s->c;
    uint64_t choice = client_draw(c, 8);
    unsigned max = 1 + (unsigned)client_draw(c, QUEUE_DEPTH_MAX);
    if (s->under_way == 0) return;
    if (choice == 0) reap(s, 0, max, 0);
    else if (choice < 3) reap(s, 1, max, 1 + (int64_t)client_draw(c, 2000000));
    else if (choice < 6 || s->descriptor < 0) reap(s, 1 + (unsigned)client_draw(c, max), max, PATIENCE_NS);
    else wait_and_reap(s);
}

/* With nothing under way the descriptor comes to rest: else a loop would go round for nothing. */
static void check_rest(queue_session *s)
{
    for (unsigned looks = 0; s->descriptor >= 0 && sim_descriptor_wait(s->c->run->k, s->descriptor, 10000000); looks++) {
        if (looks == IDLE_LOOKS) crash_fail("nothing is under way, and the descriptor stays readable");
        reap(s, 0, 1, 0);
        client_pause(s->c, 20);
    }
}

/* ---- the session ------------------------------------------------------------------------------------------------- */

static void session_close(queue_session *s)
{
    crash_met_all.queue_closed += s->under_way > 0;
    int rc = rw_queue_close(s->queue);
    if (rc != 0) crash_fail("queue_close: %s", rw_last_error(s->c->run->db));
    s->is_closed = true;
    for (unsigned i = 0; i < s->depth; i++) {
        queue_item *item = &s->items[i];
        if (!item->under_way) continue;
        item->under_way = false;
        queue_item_over(s, item);
    }
    s->under_way = 0;
    group_end(s);
}

void client_queue(client *c)
{
    queue_session s = {.c = c, .descriptor = -1, .depth = 1 + (unsigned)client_draw(c, QUEUE_DEPTH_MAX)};
    if (!crash_result(c->run, rw_queue_open(c->run->db, s.depth, &s.queue), "queue_open")) return;
    s.touched = calloc(c->run->plan.slots, sizeof *s.touched);
    RW_ASSERT(s.touched != NULL);
    crash_group_begin(c->history);
    if (client_draw(c, 2) == 0) {
        s.descriptor = rw_queue_fd(s.queue);
        if (s.descriptor < 0) crash_fail("queue_fd: %s", rw_last_error(c->run->db));
    }
    for (uint64_t turns = 1 + client_draw(c, TURNS_MAX); turns > 0; turns--) {
        submit_some(&s);
        if (client_draw(c, 4) == 0) cancel_one(&s);
        if (client_draw(c, 4) > 0) reap_some(&s);
        if (client_draw(c, 10) == 0) client_pause(c, 30);
    }
    bool leaves_some = client_draw(c, 3) == 0;
    while (s.under_way > 0 && !leaves_some) reap_some(&s);
    if (s.under_way == 0) check_rest(&s);
    session_close(&s);
    free(s.touched);
}
