# make              build/libringwood.a, build/libringwood.so, build/ringwood
# make check        installs what is missing, builds and runs the tests (TAP, under prove)
# make demo         installs what is missing, builds, runs the benchmark and the crash test on real files, prints the report
# make compare      installs what is missing, builds, measures ringwood beside five other engines; make compare-quick
# make profile      installs what is missing, builds, tells where a workload of the benchmark spends its time: WORKLOAD=readrandom BENCH='--threads 1'
# make examples     build/examples/*, linked against build/libringwood.so as any program would be
# make install      PREFIX= DESTDIR=
# make valgrind     memcheck over a part of the tests; make sanitizers, fuzz, crash, check-long: longer campaigns
# make figures      what the README's tables say; make figures-scale
# VARIANT=sim|tiny|asan|tsan|debug builds the same things under build/<variant>/
SHELL := /bin/bash
VARIANT ?= release
PREFIX ?= /usr/local
VERSION := 0.1.0
CC := gcc
LD := ld
OBJCOPY := objcopy

OUT := $(if $(filter release,$(VARIANT)),build,build/$(VARIANT))
OBJ := $(OUT)/obj

WARNINGS := -Wall -Wextra -Wshadow -Wconversion -Wsign-conversion -Wstrict-prototypes -Wmissing-prototypes -Wvla -Wformat=2 \
            -Wundef -Wpointer-arith -Wcast-align -Wwrite-strings -Werror
HARDENING := -fstack-protector-strong -fstack-clash-protection -fcf-protection -fPIC -fvisibility=hidden
CFLAGS_release := -O3 -g -D_FORTIFY_SOURCE=2
CFLAGS_debug := -O1 -g -DRW_CHECKS
CFLAGS_tiny := -O1 -g -DRW_CHECKS -DRW_TINY -DRW_PLANTED_BUGS -fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer
CFLAGS_sim := -O2 -g -DRW_CHECKS -DRW_TINY -DRW_PLANTED_BUGS
CFLAGS_asan := -O1 -g -DRW_CHECKS -fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer
CFLAGS_tsan := -O1 -g -DRW_CHECKS -fsanitize=thread -Wno-tsan
LDFLAGS_tiny := -fsanitize=address,undefined
LDFLAGS_asan := -fsanitize=address,undefined
LDFLAGS_tsan := -fsanitize=thread

CFLAGS := -std=gnu11 $(WARNINGS) $(HARDENING) $(CFLAGS_$(VARIANT)) $(EXTRA_CFLAGS)
CPPFLAGS := -D_GNU_SOURCE -Iinclude -I.
LDFLAGS := -Wl,-z,relro,-z,now $(LDFLAGS_$(VARIANT))
LIBS := -luring -lnuma -lisal -lpthread
CLI_LIBS := -ledit -ljansson -lm

LIB_FOLDERS := base kernel_io store wal buffer btree txn engine
LIB_SRC := $(foreach d,$(LIB_FOLDERS),$(wildcard $(d)/*.c))
CLI_SRC := $(wildcard cli/*.c) $(wildcard bench/*.c)
SUPPORT_SRC := $(wildcard tests/support/*.c) $(wildcard tests/sim/*.c)
UNIT_SRC := $(wildcard tests/unit/test_*.c)
API_SRC := $(wildcard tests/api/test_*.c)
ISOLATION_SRC := $(wildcard tests/isolation/test_*.c)

LIB_OBJ := $(LIB_SRC:%.c=$(OBJ)/%.o)
CLI_OBJ := $(CLI_SRC:%.c=$(OBJ)/%.o)
SUPPORT_OBJ := $(SUPPORT_SRC:%.c=$(OBJ)/%.o)
EXAMPLE_BIN := $(patsubst examples/%.c,$(OUT)/examples/%,$(wildcard examples/*.c))
UNIT_BIN := $(UNIT_SRC:tests/unit/%.c=$(OUT)/tests/%)
API_BIN := $(API_SRC:tests/api/%.c=$(OUT)/tests/%)
ISOLATION_OBJ := $(patsubst %.c,$(OBJ)/%.o,$(filter-out $(ISOLATION_SRC),$(wildcard tests/isolation/*.c)))
ISOLATION_BIN := $(ISOLATION_SRC:tests/isolation/%.c=$(OUT)/tests/%)
# what callgrind counts is the code that users get
INSTRUCTIONS_BIN := $(if $(filter release,$(VARIANT)),$(OUT)/tests/instructions)

.PHONY: FORCE all lib tests examples clean install deps check check-long demo compare compare-quick profile figures figures-scale crash fuzz sanitizers valgrind
.SECONDARY:
.DELETE_ON_ERROR:
all: $(OUT)/libringwood.a $(OUT)/libringwood.so $(OUT)/ringwood
lib: $(OUT)/libringwood.a
tests: $(UNIT_BIN) $(API_BIN) $(ISOLATION_BIN) $(INSTRUCTIONS_BIN)
examples: $(EXAMPLE_BIN)

$(OBJ)/%.o: %.c Makefile
	@mkdir -p $(@D)
	@echo "cc $@"
	@$(CC) $(CPPFLAGS) $(CFLAGS) -MMD -MP -c $< -o $@

# For what is built here: every symbol, file by file. The command uses helpers of base/, the tests use everything.
$(OUT)/libringwood-internal.a: $(LIB_OBJ)
	@mkdir -p $(@D)
	@rm -f $@
	ar rcs $@ $^

# For users: one object in which only the public symbols are global, the same as in the shared library.
$(OBJ)/public-symbols: libringwood.map
	@mkdir -p $(@D)
	sed -n '/global:/,/local:/{s/.*global://;/local:/d;s/[;[:space:]]\+/\n/g;p}' $< | sed '/^$$/d' > $@
	@test -s $@

$(OBJ)/libringwood.o: $(LIB_OBJ) $(OBJ)/public-symbols
	$(LD) -r -o $@ $(LIB_OBJ)
	$(OBJCOPY) --wildcard --keep-global-symbols=$(OBJ)/public-symbols --localize-hidden $@

$(OUT)/libringwood.a: $(OBJ)/libringwood.o
	@rm -f $@
	ar rcs $@ $<

$(OUT)/libringwood.so: $(LIB_OBJ) libringwood.map
	@mkdir -p $(@D)
	$(CC) -shared -Wl,-soname,libringwood.so.0 -Wl,--version-script=libringwood.map $(LDFLAGS) -o $@ $(LIB_OBJ) $(LIBS)
	ln -sf libringwood.so $(OUT)/libringwood.so.0

$(OUT)/ringwood: $(CLI_OBJ) $(OUT)/libringwood-internal.a
	$(CC) $(LDFLAGS) -o $@ $(CLI_OBJ) $(OUT)/libringwood-internal.a $(LIBS) $(CLI_LIBS)

# as a user would: the public header, -lringwood
$(OUT)/examples/%: examples/%.c include/ringwood.h $(OUT)/libringwood.so Makefile
	@mkdir -p $(@D)
	$(CC) -std=c11 -Wall -Wextra -pedantic -Werror -Iinclude $(LDFLAGS_$(VARIANT)) -o $@ $< -L$(OUT) -lringwood -Wl,-rpath,'$$ORIGIN/..'

# unit tests see every part, and the simulator; api tests see the public header only
$(OUT)/tests/%: $(OBJ)/tests/unit/%.o $(SUPPORT_OBJ) $(OUT)/libringwood-internal.a
	@mkdir -p $(@D)
	$(CC) $(LDFLAGS) -o $@ $< $(SUPPORT_OBJ) $(OUT)/libringwood-internal.a $(LIBS) -lm

$(OUT)/tests/%: $(OBJ)/tests/api/%.o $(SUPPORT_OBJ) $(OUT)/libringwood-internal.a
	@mkdir -p $(@D)
	$(CC) $(LDFLAGS) -o $@ $< $(SUPPORT_OBJ) $(OUT)/libringwood-internal.a $(LIBS) -lsqlite3 -lm

# histories of transactions and their checker
$(OUT)/tests/%: $(OBJ)/tests/isolation/%.o $(ISOLATION_OBJ) $(SUPPORT_OBJ) $(OUT)/libringwood-internal.a
	@mkdir -p $(@D)
	$(CC) $(LDFLAGS) -o $@ $< $(ISOLATION_OBJ) $(SUPPORT_OBJ) $(OUT)/libringwood-internal.a $(LIBS) -lm

# with the public symbols only, as users link it
$(OUT)/tests/instructions: $(OBJ)/tests/check/instructions.o $(OUT)/libringwood.a
	@mkdir -p $(@D)
	$(CC) $(LDFLAGS) -o $@ $^ $(LIBS)

# crashes and faults from seeds, over the simulator; VARIANT=sim is the one to run at length
$(OUT)/tests/crash_sim: $(patsubst %.c,$(OBJ)/%.o,$(wildcard tests/crash/*.c tests/isolation/history*.c)) $(SUPPORT_OBJ) $(OUT)/libringwood-internal.a
	@mkdir -p $(@D)
	$(CC) $(LDFLAGS) -o $@ $^ $(LIBS)

# Engines side by side. Peers' libraries belong to this program only; those that are not installed are left out, and it says so.
COMPARE_SRC := $(filter-out $(wildcard bench/compare/adapter_*.c),$(wildcard bench/compare/*.c)) bench/compare/adapter_ringwood.c
COMPARE_PEERS := lmdb:lmdb.h rocksdb:rocksdb/c.h wiredtiger:wiredtiger.h leveldb:leveldb/c.h sqlite:sqlite3.h
COMPARE_LIBS_sqlite := -lsqlite3
peer_is_installed = $(wildcard $(addsuffix /$(lastword $(subst :, ,$(1))),/usr/include /usr/local/include))
COMPARE_HAVE := $(foreach p,$(COMPARE_PEERS),$(if $(call peer_is_installed,$(p)),$(firstword $(subst :, ,$(p)))))
COMPARE_OBJ := $(COMPARE_SRC:%.c=$(OBJ)/%.o) $(COMPARE_HAVE:%=$(OBJ)/bench/compare/adapter_%.o) \
               $(patsubst %,$(OBJ)/bench/%.o,dataset environment keys measure pacer parse percentiles scratch series text)
COMPARE_LIBS := $(foreach p,$(COMPARE_HAVE),$(or $(COMPARE_LIBS_$(p)),-l$(p)))

# RocksDB tells C programs no version.
$(OBJ)/bench/compare/adapter_rocksdb.o: CPPFLAGS += -DCOMPARE_ROCKSDB_VERSION='"$(shell sed -n 's/^.define ROCKSDB_[MP][A-Z]* \([0-9]*\)$$/\1/p' /usr/include/rocksdb/version.h | paste -sd. )"'
$(OBJ)/bench/compare/adapters.o: CPPFLAGS += $(COMPARE_HAVE:%=-DCOMPARE_HAVE_%)
$(OBJ)/bench/compare/adapters.o: $(OUT)/compare/peers

# Changes when the peers do.
$(OUT)/compare/peers: FORCE
	@mkdir -p $(@D)
	@echo '$(COMPARE_HAVE)' | cmp -s - $@ || echo '$(COMPARE_HAVE)' > $@

$(OUT)/compare/ringwood-compare: $(COMPARE_OBJ) $(OUT)/libringwood-internal.a
	@mkdir -p $(@D)
	$(CC) $(LDFLAGS) -o $@ $(COMPARE_OBJ) $(OUT)/libringwood-internal.a $(COMPARE_LIBS) $(LIBS) -ljansson -lm

deps:
	@tools/install-deps

# The suite, in one report: everything as users get it; the simulator; tiny limits under the address and undefined-behaviour sanitizers;
# what has threads under the thread sanitizer.
PROVE := prove --exec '' --timer
CRASH_STATES ?= 2000
# The longest first, so that no processor waits at the end; one more than there are processors, since half of the programs wait for the disk.
CHECK_TESTS = tests/check/tiny.t tests/check/tsan.t tests/check/planted.t tests/check/sim.t $(ISOLATION_BIN) tests/check/instructions.t $(sort $(UNIT_BIN) $(API_BIN)) $(sort $(wildcard tests/e2e/*.t))

check: deps
	+$(MAKE) --no-print-directory -j$$(nproc) all tests examples build/compare/ringwood-compare
	+$(MAKE) --no-print-directory -j$$(nproc) VARIANT=sim build/sim/tests/crash_sim build/sim/tests/test_engine_key_filter
	+$(MAKE) --no-print-directory -j$$(nproc) VARIANT=tiny all tests
	+$(MAKE) --no-print-directory -j$$(nproc) VARIANT=tsan $$(tests/check/tsan.t --names | sed 's,[^ ]*,build/tsan/tests/&,g')
	CRASH_STATES=$(CRASH_STATES) $(PROVE) -j$$(($$(nproc) + 1)) $(CHECK_TESTS)

demo: deps
	+$(MAKE) --no-print-directory -j$$(nproc) all
	tools/demo

# ringwood beside LMDB, RocksDB, WiredTiger, LevelDB and SQLite from Debian's packages, and the device itself (fio), which are installed when they are missing. COMPARE: options of
# `ringwood compare`. Without any it takes 15 to 20 minutes and 5 GB under the present directory; the quick one under 2 minutes.
COMPARE ?=
COMPARE_PACKAGES := liblmdb-dev librocksdb-dev libwiredtiger-dev libleveldb-dev libsqlite3-dev fio
compare: deps
	@tools/install-deps $(COMPARE_PACKAGES)
	+$(MAKE) --no-print-directory -j$$(nproc) all build/compare/ringwood-compare
	build/ringwood compare $(COMPARE)

compare-quick:
	+$(MAKE) --no-print-directory COMPARE='--quick $(COMPARE)' compare

# where a workload of the benchmark spends its time, by perf, and its instructions by callgrind; BENCH: options of `ringwood bench`
WORKLOAD ?=
BENCH ?=
profile: deps
	+$(MAKE) --no-print-directory -j$$(nproc) all
	tools/profile "$(WORKLOAD)" $(BENCH)

# with the zipfian draws of bench/
$(OUT)/figures/transactions: bench/figures/transactions.c bench/figures/figures.h include/ringwood.h $(OBJ)/bench/keys.o $(OUT)/libringwood-internal.a
	@mkdir -p $(@D)
	$(CC) $(CPPFLAGS) $(CFLAGS) $(LDFLAGS) -o $@ $< $(OBJ)/bench/keys.o $(OUT)/libringwood-internal.a -lrocksdb -lwiredtiger $(LIBS) -lm

# sizes that grow; needs no peers
SCALE_OBJ := $(patsubst %,$(OBJ)/bench/%.o,figures/scale figures/scale_recovery figures/scale_curve environment measure parse scratch)
$(OUT)/figures/scale: $(SCALE_OBJ) $(OUT)/libringwood-internal.a
	@mkdir -p $(@D)
	$(CC) $(LDFLAGS) -o $@ $^ $(LIBS) -lm

# what grows with the data, at full size: half an hour, 15 GB under SCALE_DIR. bench/README.md says what is measured
SCALE_DIR ?= .
figures-scale: deps
	+$(MAKE) --no-print-directory -j$$(nproc) build/figures/scale
	build/figures/scale recovery $(SCALE_DIR) --json build/figures/recovery.json
	build/figures/scale open $(SCALE_DIR) --json build/figures/open.json
	build/figures/scale curve $(SCALE_DIR) --records 100M --json build/figures/curve.json

# the README's figures
figures: deps
	@tools/install-deps $(COMPARE_PACKAGES)
	+$(MAKE) --no-print-directory -j$$(nproc) all build/compare/ringwood-compare build/figures/transactions
	tools/figures

# any number of crash states, from one seed on: make crash SEEDS=200000
SEEDS ?= 3000
FIRST_SEED ?= 1
crash: deps
	+$(MAKE) --no-print-directory -j$$(nproc) VARIANT=sim build/sim/tests/crash_sim
	build/sim/tests/crash_sim --seeds $(FIRST_SEED)..1000000000 --states $(SEEDS)

# hours: the same suite with everything longer
check-long:
	CHECK_LONG=1 DIFF_OPS=5000000 CRASH_ROUNDS=500 KILL_ROUNDS=500 THREADS_SECONDS=60 WAL_SEEDS=5000 $(MAKE) CRASH_STATES=200000 check

# the suite with the limits that users get under each sanitizer, which make check does with tiny limits, and with a part of it: about half an hour
sanitizers: deps
	+$(MAKE) --no-print-directory -j$$(nproc) VARIANT=asan all tests
	+$(MAKE) --no-print-directory -j$$(nproc) VARIANT=tsan all tests
	SANITIZE_ALL=1 $(PROVE) -j$$(nproc) tests/check/asan.t tests/check/tsan.t

# damaged bytes and failing disks, from fresh seeds, for about FUZZ_SECONDS
FUZZ_SECONDS ?= 600
fuzz: deps
	+$(MAKE) --no-print-directory -j$$(nproc) VARIANT=sim build/sim/tests/crash_sim
	+$(MAKE) --no-print-directory -j$$(nproc) VARIANT=tiny build/tiny/tests/test_node build/tiny/tests/test_every_byte
	FUZZ_SECONDS=$(FUZZ_SECONDS) tools/fuzz

# memcheck over a part of the suite: about ten minutes
valgrind: deps
	+$(MAKE) --no-print-directory -j$$(nproc) tests
	$(PROVE) --verbose tests/check/valgrind.t

install: all
	install -d $(DESTDIR)$(PREFIX)/bin $(DESTDIR)$(PREFIX)/lib/pkgconfig $(DESTDIR)$(PREFIX)/include
	install -m 755 $(OUT)/ringwood $(DESTDIR)$(PREFIX)/bin/ringwood
	if [ -x $(OUT)/compare/ringwood-compare ]; then install -m 755 $(OUT)/compare/ringwood-compare $(DESTDIR)$(PREFIX)/bin/ringwood-compare; fi
	install -m 644 $(OUT)/libringwood.a $(DESTDIR)$(PREFIX)/lib/libringwood.a
	install -m 755 $(OUT)/libringwood.so $(DESTDIR)$(PREFIX)/lib/libringwood.so.$(VERSION)
	ln -sf libringwood.so.$(VERSION) $(DESTDIR)$(PREFIX)/lib/libringwood.so.0
	ln -sf libringwood.so.0 $(DESTDIR)$(PREFIX)/lib/libringwood.so
	install -m 644 include/ringwood.h $(DESTDIR)$(PREFIX)/include/ringwood.h
	sed -e 's|@PREFIX@|$(PREFIX)|;s|@VERSION@|$(VERSION)|' ringwood.pc.in > $(DESTDIR)$(PREFIX)/lib/pkgconfig/ringwood.pc

clean:
	rm -rf build

-include $(shell find build -name '*.d' 2>/dev/null)
