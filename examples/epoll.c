/*
 * A server in one thread: a queue inside an epoll loop. It listens on a Unix socket; each line is a request, answered by a line, one after the other on each
 * connection, side by side on all of them:
 *
 *   PUT key value    OK, when it is durable          GET key    VALUE ..., or NONE          DEL key    OK, or NONE
 *
 *   epoll DIR SOCKET          e.g. with: socat - UNIX-CONNECT:SOCKET
 */
#include <errno.h>
#include <ringwood.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define CONNECTIONS 256
#define LINE 4096

typedef struct connection {
    rw_op op;                    /* first: what is reaped is the connection */
    int socket;
    int under_way;               /* op is in the queue: everything here is left alone */
    size_t size;                 /* of what has come in */
    size_t request;              /* of the line that op was made of */
    char line[LINE], value[LINE];
    struct connection *next;     /* in the list of free ones */
} connection;

static rw_db *db;
static rw_queue *queue;
static int epoll;
static connection connections[CONNECTIONS], *unused;

static void die(const char *what, int error)
{
    fprintf(stderr, "%s: %s\n", what, error == 0 ? strerror(errno) : rw_last_error(db));
    exit(1);
}

static void watch(int descriptor, void *who)
{
    struct epoll_event event = {.events = EPOLLIN | (who == &queue ? 0 : EPOLLET), .data.ptr = who};
    if (epoll_ctl(epoll, EPOLL_CTL_ADD, descriptor, &event) != 0) die("epoll_ctl", 0);
}

static void hang_up(connection *c)
{
    close(c->socket);
    c->next = unused;
    unused = c;
}

/* A client that does not read its answers is not waited for. */
static int answer(connection *c, const char *word, const char *text, size_t size)
{
    char line[LINE + 16];
    int length = snprintf(line, sizeof line, "%s%s%.*s\n", word, size > 0 ? " " : "", (int)size, text);
    return send(c->socket, line, (size_t)length, MSG_DONTWAIT | MSG_NOSIGNAL) == length;
}

/* Puts the request of a line that ends at `end` into the queue. False: it is none. */
static int begin(connection *c, char *end)
{
    char *key = c->line + 4, *value;
    c->op = (rw_op){.bucket = RW_DEFAULT_BUCKET, .flags = RW_SYNC, .buf = c->value, .size = sizeof c->value};
    *end = 0;
    if (strncmp(c->line, "PUT ", 4) == 0 && (value = strchr(key, ' ')) != NULL) {
        c->op.kind = RW_OP_PUT;
        c->op.key = (rw_slice){key, (size_t)(value - key)};
        c->op.value = (rw_slice){value + 1, (size_t)(end - value - 1)};
    } else if (strncmp(c->line, "GET ", 4) == 0 || strncmp(c->line, "DEL ", 4) == 0) {
        c->op.kind = c->line[0] == 'G' ? RW_OP_GET : RW_OP_DEL;
        c->op.key = (rw_slice){key, (size_t)(end - key)};
    } else return 0;
    rw_op *op = &c->op;
    int error = rw_submit(queue, &op, 1);
    if (error != 0) die("rw_submit", error);
    c->under_way = 1;
    return 1;
}

/* The lines that have come in, up to one that has to be waited for. False: the client is gone. */
static int proceed(connection *c)
{
    char *end;
    while (!c->under_way && (end = memchr(c->line, '\n', c->size)) != NULL) {
        c->request = (size_t)(end + 1 - c->line);
        if (begin(c, end)) return 1;
        memmove(c->line, end + 1, c->size -= c->request);
        if (!answer(c, "ERROR", "PUT key value, GET key or DEL key", 33)) return 0;
    }
    return 1;
}

/* As long as there is something, and nothing under way: it is told once only that something has come. */
static void receive(connection *c)
{
    while (!c->under_way) {
        ssize_t got = c->size == LINE ? 0 : recv(c->socket, c->line + c->size, LINE - c->size, MSG_DONTWAIT);
        if (got < 0 && errno == EAGAIN) return;
        if (got > 0) c->size += (size_t)got;
        if (got > 0 && proceed(c)) continue;
        hang_up(c);
        return;
    }
}

static void finish(connection *c)
{
    const rw_op *op = &c->op;
    int sent = op->result == RW_ENOTFOUND ? answer(c, "NONE", "", 0)
               : op->result != 0          ? answer(c, "ERROR", rw_strerror(op->result), strlen(rw_strerror(op->result)))
               : op->kind == RW_OP_GET    ? answer(c, "VALUE", op->buf, op->size)
                                          : answer(c, "OK", "", 0);
    c->under_way = 0;
    memmove(c->line, c->line + c->request, c->size -= c->request);
    if (sent && proceed(c)) receive(c);
    else hang_up(c);
}

static void reap(void)
{
    rw_op *done[64];
    int count;
    while ((count = rw_reap(queue, done, 0, 64, 0)) > 0)
        for (int i = 0; i < count; i++) finish((connection *)(void *)done[i]);
    if (count < 0) die("rw_reap", count);
}

static void admit(int listener)
{
    int socket;
    while ((socket = accept(listener, NULL, NULL)) >= 0) {
        connection *c = unused;
        if (c == NULL) {
            close(socket);
            continue;
        }
        unused = c->next;
        c->socket = socket;
        c->under_way = 0;
        c->size = 0;
        watch(socket, c);
    }
}

int main(int count, char **arguments)
{
    struct sockaddr_un name = {.sun_family = AF_UNIX};
    if (count != 3 || strlen(arguments[2]) >= sizeof name.sun_path) {
        fprintf(stderr, "usage: epoll DIR SOCKET\n");
        return 2;
    }
    int error = rw_open(arguments[1], NULL, &db);
    if (error == 0) error = rw_queue_open(db, CONNECTIONS, &queue);
    if (error != 0) die(arguments[1], error);
    strcpy(name.sun_path, arguments[2]);
    unlink(name.sun_path);
    int listener = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0), ready = rw_queue_fd(queue);
    epoll = epoll_create1(0);
    if (listener < 0 || epoll < 0 || bind(listener, (struct sockaddr *)&name, sizeof name) != 0 || listen(listener, 64) != 0) die(name.sun_path, 0);
    if (ready < 0) die("rw_queue_fd", ready);
    for (int i = 0; i < CONNECTIONS; i++) {
        connections[i].next = unused;
        unused = &connections[i];
    }
    watch(listener, &listener);
    watch(ready, &queue);
    for (;;) {
        struct epoll_event events[64];
        int woken = epoll_wait(epoll, events, 64, -1);
        for (int i = 0; i < woken; i++) {
            void *who = events[i].data.ptr;
            if (who == &listener) admit(listener);
            else if (who == &queue) reap();
            else receive(who);
        }
        reap(); /* what was in the cache is done already */
    }
}
