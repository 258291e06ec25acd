/*
 * Context switches: x86-64 by hand (the registers that a call must preserve), anywhere else by ucontext. The sanitizers are told of every
 * switch. Used stacks are kept for the next fiber: mapping one costs more than all of a short fiber's run.
 */
#include "tests/sim/sim_fiber.h"

#include <stdlib.h>
#include <sys/mman.h>
#include <ucontext.h>
#include <unistd.h>

#include "base/base.h"

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#define STACK_BYTES ((size_t)1 << 20)   /* frames are larger with red zones */
#else
#define STACK_BYTES ((size_t)256 << 10)
#endif
#if defined(__SANITIZE_THREAD__)
#include <sanitizer/tsan_interface.h>
#endif
/* On either side of a switch the thread sanitizer's books belong to different fibers: no entry and exit may be counted across it. */
#define UNCOUNTED __attribute__((no_sanitize("thread"))) static inline
#define GUARD_BYTES ((size_t)4096)
#define STACKS_KEPT 64u

struct sim_context {
#if defined(__x86_64__)
    void *stack_pointer;     /* while it does not run */
#else
    ucontext_t registers;
#endif
    char *stack;             /* NULL: the scheduler's, not ours */
    const void *bottom;      /* for the address sanitizer */
    size_t bytes;
    void *fake_stack;
    void *tsan_fiber;
    void (*run)(void *);
    void *arg;
};

static char *stacks_kept[STACKS_KEPT];
static unsigned stacks_kept_count;
/* What a new stack's first instruction runs; handed over through here because it has no arguments. */
static sim_context *context_starting;
static sim_context *context_scheduler;

#if defined(__x86_64__)
void sim_context_switch(void **save_stack_pointer, void *stack_pointer);
__asm__(".text\n"
        ".globl sim_context_switch\n"
        ".hidden sim_context_switch\n"
        ".type sim_context_switch, @function\n"
        "sim_context_switch:\n"
        "    endbr64\n"
        "    pushq %rbp\n"
        "    pushq %rbx\n"
        "    pushq %r12\n"
        "    pushq %r13\n"
        "    pushq %r14\n"
        "    pushq %r15\n"
        "    movq %rsp, (%rdi)\n"
        "    movq %rsi, %rsp\n"
        "    popq %r15\n"
        "    popq %r14\n"
        "    popq %r13\n"
        "    popq %r12\n"
        "    popq %rbx\n"
        "    popq %rbp\n"
        "    ret\n"
        ".size sim_context_switch, . - sim_context_switch\n");
#endif

UNCOUNTED void context_swap(sim_context *from, sim_context *to)
{
#if defined(__x86_64__)
    sim_context_switch(&from->stack_pointer, to->stack_pointer);
#else
    RW_ASSERT(swapcontext(&from->registers, &to->registers) == 0);
#endif
}

/* Runs on the stack it leaves, just before. */
UNCOUNTED void announce_switch(sim_context *from, const sim_context *to, int from_is_done)
{
    (void)from, (void)to, (void)from_is_done;
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_start_switch_fiber(from_is_done ? NULL : &from->fake_stack, to->bottom, to->bytes);
#endif
#if defined(__SANITIZE_THREAD__)
    __tsan_switch_to_fiber(to->tsan_fiber, 0);
#endif
}

/* Runs on the stack it has come to, just after. */
UNCOUNTED void announce_arrival(sim_context *here, sim_context *came_from)
{
    (void)here, (void)came_from;
#if defined(__SANITIZE_ADDRESS__)
    const void *bottom;
    size_t bytes;
    __sanitizer_finish_switch_fiber(here->fake_stack, &bottom, &bytes);
    if (came_from->stack == NULL) came_from->bottom = bottom, came_from->bytes = bytes;
#endif
}

__attribute__((no_sanitize("thread"))) static void context_begin(void)
{
    sim_context *context = context_starting;
    announce_arrival(context, context_scheduler);
    context->run(context->arg);
    abort();
}

static char *stack_new(void)
{
    if (stacks_kept_count > 0) return stacks_kept[--stacks_kept_count];
    char *map = mmap(NULL, STACK_BYTES + GUARD_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    RW_ASSERT(map != MAP_FAILED);
    RW_ASSERT(mprotect(map, GUARD_BYTES, PROT_NONE) == 0);
    return map + GUARD_BYTES;
}

static void stack_free(char *stack)
{
#if defined(__SANITIZE_ADDRESS__)
    __asan_unpoison_memory_region(stack, STACK_BYTES);
#endif
    if (stacks_kept_count < STACKS_KEPT) stacks_kept[stacks_kept_count++] = stack;
    else RW_ASSERT(munmap(stack - GUARD_BYTES, STACK_BYTES + GUARD_BYTES) == 0);
}

sim_context *sim_context_for_scheduler(void)
{
    sim_context *context = calloc(1, sizeof *context);
    RW_ASSERT(context != NULL);
#if defined(__SANITIZE_THREAD__)
    context->tsan_fiber = __tsan_get_current_fiber();
#endif
    return context;
}

sim_context *sim_context_new(void (*run)(void *), void *arg)
{
    sim_context *context = calloc(1, sizeof *context);
    RW_ASSERT(context != NULL);
    context->stack = stack_new();
    context->bottom = context->stack;
    context->bytes = STACK_BYTES;
    context->run = run;
    context->arg = arg;
#if defined(__x86_64__)
    /* As sim_context_switch leaves a stack: six registers, then where to go; there the stack is aligned as after a call. */
    void **top = (void **)(void *)(context->stack + STACK_BYTES);
    memset(top - 8, 0, 8 * sizeof *top);
    void (*begin)(void) = context_begin;
    memcpy(top - 2, &begin, sizeof begin);
    context->stack_pointer = top - 8;
#else
    RW_ASSERT(getcontext(&context->registers) == 0);
    context->registers.uc_stack.ss_sp = context->stack;
    context->registers.uc_stack.ss_size = STACK_BYTES;
    makecontext(&context->registers, context_begin, 0);
#endif
#if defined(__SANITIZE_THREAD__)
    context->tsan_fiber = __tsan_create_fiber(0);
#endif
    return context;
}

void sim_context_free(sim_context *context)
{
    if (context->stack != NULL) {
        stack_free(context->stack);
#if defined(__SANITIZE_THREAD__)
        __tsan_destroy_fiber(context->tsan_fiber);
#endif
    }
    free(context);
}

void sim_context_enter(sim_context *scheduler, sim_context *fiber)
{
    context_starting = fiber;
    context_scheduler = scheduler;
    announce_switch(scheduler, fiber, 0);
    context_swap(scheduler, fiber);
    announce_arrival(scheduler, fiber);
}

void sim_context_leave(sim_context *fiber, sim_context *scheduler, int is_last)
{
    announce_switch(fiber, scheduler, is_last);
    context_swap(fiber, scheduler);
    announce_arrival(fiber, scheduler);
}
