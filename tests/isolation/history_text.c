#include "tests/isolation/history_text.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define KEYS 26u
#define TXNS 64u
#define OPS 512u

typedef struct {
    history *h;
    const char *text, *at;
    uint32_t versions[KEYS][256];        /* by name; 0: not written yet */
    bool collecting;                     /* the first reading, which learns the versions' numbers */
    uint32_t ops, savepoint;
} parser;

static _Noreturn void malformed(const parser *p, const char *what)
{
    fprintf(stderr, "history \"%s\": %s at \"%s\"\n", p->text, what, p->at);
    exit(1);
}

static void skip_blanks(parser *p)
{
    while (*p->at == ' ') p->at++;
}

static uint64_t parse_number(parser *p)
{
    skip_blanks(p);
    if (!isdigit((unsigned char)*p->at)) malformed(p, "no time");
    char *end;
    uint64_t number = strtoull(p->at, &end, 10);
    p->at = end;
    return number;
}

static void parse_moment(parser *p, uint64_t *from, uint64_t *to)
{
    *from = *to = parse_number(p);
    if (*p->at != '-') return;
    p->at++;
    *to = parse_number(p);
}

static uint32_t parse_version(parser *p, uint32_t key)
{
    char name = *p->at++;
    if (name == '0') return HISTORY_INITIAL;
    if (name == '-') return HISTORY_ABSENT;
    if (name == '~') return HISTORY_GARBAGE;
    if (!isalnum((unsigned char)name)) malformed(p, "no version before");
    uint32_t version = p->versions[key][(unsigned char)name];
    if (version == 0 && !p->collecting) malformed(p, "a version nobody writes, before");
    return version;
}

static void parse_write(parser *p, history_kind kind, uint32_t key)
{
    char name = *p->at++;
    uint32_t replaced = HISTORY_BLIND;
    if (!isalnum((unsigned char)name) || name == '0') malformed(p, "no version before");
    if (*p->at == '<') {
        p->at++;
        replaced = parse_version(p, key);
    }
    p->versions[key][(unsigned char)name] = history_write(p->h, 0, kind, key, replaced, 0);
}

static void parse_op(parser *p)
{
    char kind = *p->at++;
    if (kind == '{') {
        p->savepoint = p->ops;
        return;
    }
    p->ops++;
    if (kind == '}') {
        history_rollback(p->h, 0, p->savepoint);
        return;
    }
    if (*p->at < 'a' || *p->at > 'z') malformed(p, "no key");
    uint32_t key = (uint32_t)(*p->at++ - 'a');
    switch (kind) {
    case 'r': history_read(p->h, 0, key, parse_version(p, key), 0); break;
    case 's': history_read(p->h, 0, key, parse_version(p, key), HISTORY_BY_SCAN); break;
    case 'u': history_read(p->h, 0, key, parse_version(p, key), HISTORY_CLAIM); break;
    case 'w': parse_write(p, HISTORY_WRITE, key); break;
    case 'd': parse_write(p, HISTORY_DELETE, key); break;
    default: malformed(p, "no operation before");
    }
}

static void parse_txn(parser *p)
{
    static const char modes[] = "SZPROX";
    skip_blanks(p);
    const char *mode = strchr(modes, *p->at);
    if (*p->at == 0 || mode == NULL) malformed(p, "no mode");
    p->at++;
    history_outcome outcome = *p->at == '!' ? HISTORY_ABORTED : *p->at == '?' ? HISTORY_UNKNOWN : HISTORY_COMMITTED;
    bool durable = *p->at == '*';
    if (outcome != HISTORY_COMMITTED || durable) p->at++;
    history_txn *txn = history_begin(p->h, 0, (history_mode)(mode - modes));
    parse_moment(p, &txn->begin_from, &txn->begin_to);
    parse_moment(p, &txn->commit_from, &txn->commit_to);
    if (txn->mode == HISTORY_SINGLE) {
        txn->commit_from = txn->begin_from;
        txn->begin_to = txn->commit_to;
    }
    txn->durable = durable;
    if (*p->at++ != ':') malformed(p, "no colon before");
    p->ops = 0;
    for (skip_blanks(p); *p->at != 0 && *p->at != '|'; skip_blanks(p)) parse_op(p);
    history_end(p->h, 0, outcome);
}

static void parse_all(parser *p)
{
    history_clear(p->h);
    p->at = p->text;
    if (*p->at == '+')
        for (p->at++; *p->at >= 'a' && *p->at <= 'z'; p->at++) p->h->initially_present[*p->at - 'a'] = 1;
    for (;;) {
        parse_txn(p);
        if (*p->at == 0) return;
        p->at++;
    }
}

history *history_from_text(const char *text)
{
    parser p = {.h = history_new(KEYS, 1, TXNS, OPS), .text = text, .collecting = true};
    if (p.h == NULL) malformed(&p, "no memory");
    parse_all(&p);
    p.collecting = false;
    parse_all(&p);
    return p.h;
}
