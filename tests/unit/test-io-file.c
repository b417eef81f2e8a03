/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * io.h on every module, on both kinds of loop, on a file system on a disk and on tmpfs: what the layers above may rely on.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <ploop/ploop.h>

#include "base/checked.h"
#include "io/io.h"
#include "io/loop.h"
#include "io/posix.h"

#define K 1024u

struct where {
	const char *name;
	const char *loop;
	const char *module;
	const char *folder;
	unsigned flags;
	bool direct;
};

static const struct where wheres[] = {
	{ "sync, poll, disk", "poll", "sync", "/var/tmp", 0, false },
	{ "sync, poll, tmpfs", "poll", "sync", "/dev/shm", 0, false },
	{ "sync, uring loop, disk", "uring", "sync", "/var/tmp", 0, false },
	{ "uring buffered, disk", "uring", "uring", "/var/tmp", IO_BUFFERED, false },
	{ "uring buffered, tmpfs", "uring", "uring", "/dev/shm", IO_BUFFERED, false },
	{ "uring direct, disk", "uring", "uring", "/var/tmp", 0, true },
};

static struct loop *loop;
static struct io_file *file;
static const struct where *where;
static char path[64];
static char *buffer; /* 1 MiB, aligned */

#define BUFFER (1024u * K)

/* An operation and what became of it. */
struct trial {
	struct io_op op;
	int result;
	unsigned calls;
};

static unsigned in_flight;
static bool inside_submit;

static void trial_done(struct io_op *op, int result)
{
	struct trial *trial = container_of(op, struct trial, op);

	assert_false(inside_submit);
	trial->result = result;
	trial->calls++;
	in_flight--;
}

static void start(struct trial *trial, enum io_kind kind, uint64_t offset, uint64_t length, void *memory)
{
	/* Whatever was there before must not matter. */
	memset(trial, 0xa5, sizeof(*trial));
	trial->op.kind = kind;
	trial->op.file = file;
	trial->op.offset = offset;
	trial->op.length = length;
	trial->op.buffer = memory;
	trial->op.done = trial_done;
	trial->calls = 0;
	in_flight++;
	inside_submit = true;
	io_submit(&trial->op);
	inside_submit = false;
}

static void settle(void)
{
	while (in_flight)
		assert_int_equal(loop_turn(loop, UINT64_MAX), 0);
}

static int run(enum io_kind kind, uint64_t offset, uint64_t length, void *memory)
{
	struct trial trial;

	start(&trial, kind, offset, length, memory);
	settle();
	assert_int_equal(trial.calls, 1);
	return trial.result;
}

static void assert_zeros(const char *p, size_t len)
{
	for (size_t i = 0; i < len; i++)
		if (p[i])
			fail_msg("byte %zu is 0x%02x, not zero", i, (unsigned char)p[i]);
}

static uint64_t file_size(void)
{
	uint64_t size;

	assert_int_equal(io_size(file, &size), 0);
	return size;
}

static int setup(void **state)
{
	struct ploop_error err;
	char folder[48];

	where = *state;
	snprintf(folder, sizeof(folder), "%s/ploop-io-XXXXXX", where->folder);
	assert_non_null(mkdtemp(folder));
	snprintf(path, sizeof(path), "%s/file", folder);
	buffer = io_buffer_new(BUFFER);
	assert_non_null(buffer);
	assert_int_equal(loop_new(where->loop, 8, &loop, &err), 0);
	if (io_open(loop, io_module_find(where->module), path, IO_RDWR | IO_CREATE | where->flags, &file, &err))
		fail_msg("%s", err.text);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	io_close(file);
	loop_free(loop);
	io_buffer_free(buffer, BUFFER);
	unlink(path);
	*strrchr(path, '/') = 0;
	return rmdir(path);
}

static void test_facts(void **state)
{
	struct stat st;

	(void)state;
	assert_int_equal(file->direct, where->direct);
	assert_string_equal(file->path, path);
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_mode & 0777, 0600);
	assert_true(is_power_of_two(file->block) && file->block >= 512);
	assert_true(is_power_of_two(file->memory_align));
	assert_int_equal(fcntl(posix_file(file)->fd, F_GETFL) & O_NONBLOCK, 0);
}

static void test_write_and_read(void **state)
{
	char *back = buffer + BUFFER / 2;

	(void)state;
	memset(buffer, 0x11, 64 * K);
	assert_int_equal(run(IO_WRITE, 4 * K + 512, 64 * K, buffer), 0);
	assert_int_equal(file_size(), 68 * K + 512);
	memset(back, 0xff, 80 * K);
	assert_int_equal(run(IO_READ, 0, 80 * K, back), 0);
	assert_zeros(back, 4 * K + 512);
	assert_memory_equal(back + 4 * K + 512, buffer, 64 * K);
	assert_zeros(back + 68 * K + 512, 80 * K - 68 * K - 512);
	assert_int_equal(run(IO_DATASYNC, 0, 0, NULL), 0);
	assert_int_equal(io_sync(file), 0);
}

/* The end of the file anywhere: on a block, on a sector, inside one; and reads that start beyond it. */
static void test_read_beyond_end(void **state)
{
	static const uint64_t sizes[] = { 0, 1, 511, 512, 4095, 4096, 4097, 6000, 8192 };

	(void)state;
	for (unsigned i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		char ones[8192];

		memset(ones, 1, sizeof(ones));
		assert_int_equal(io_truncate(file, 0), 0);
		assert_int_equal(io_pwrite(file, ones, sizes[i], 0), 0);
		assert_int_equal(file_size(), sizes[i]);
		memset(buffer, 0xff, 16 * K);
		assert_int_equal(run(IO_READ, 0, 16 * K, buffer), 0);
		assert_memory_equal(buffer, ones, sizes[i]);
		assert_zeros(buffer + sizes[i], 16 * K - sizes[i]);
		memset(buffer, 0xff, 16 * K);
		assert_int_equal(run(IO_READ, 1024 * K, 16 * K, buffer), 0);
		assert_zeros(buffer, 16 * K);
		memset(buffer, 0xff, 16 * K);
		assert_int_equal(io_pread(file, buffer, 9000, 3), 0);
		assert_zeros(buffer + (sizes[i] > 3 ? sizes[i] - 3 : 0), 9000 - (sizes[i] > 3 ? sizes[i] - 3 : 0));
	}
}

static void test_misaligned_memory(void **state)
{
	static const unsigned off[] = { 1, 3, 8, 100, 256, 511 };
	char *from = buffer + 1, *to = buffer + BUFFER / 2;
	size_t len = 300 * K; /* more than one bounce buffer */

	(void)state;
	for (size_t i = 0; i < len; i++)
		from[i] = (char)(i * 7 + i / 512);
	assert_int_equal(run(IO_WRITE, 512, len, from), 0);
	for (unsigned i = 0; i < sizeof(off) / sizeof(off[0]); i++) {
		memset(to, 0xff, len + 1024);
		assert_int_equal(run(IO_READ, 512, len + 512, to + off[i]), 0);
		assert_memory_equal(to + off[i], from, len);
		assert_zeros(to + off[i] + len, 512);
		assert_int_equal((unsigned char)to[off[i] - 1], 0xff);
		assert_int_equal((unsigned char)to[off[i] + len + 512], 0xff);
	}
}

/* More at once than the ring has entries or bounce buffers. */
static void test_many_at_once(void **state)
{
	enum { N = 700 };
	static struct trial trials[N];

	(void)state;
	for (unsigned odd = 0; odd < 2; odd++) {
		for (unsigned i = 0; i < N; i++) {
			memset(buffer + i * 1024, (int)(i % 251 + 1), 1024);
			start(&trials[i], IO_WRITE, (uint64_t)i * 512, 512, buffer + i * 1024 + odd);
		}
		settle();
		for (unsigned i = 0; i < N; i++)
			assert_true(trials[i].calls == 1 && !trials[i].result);
		memset(buffer, 0, N * 1024);
		for (unsigned i = 0; i < N; i++)
			start(&trials[i], IO_READ, (uint64_t)i * 512, 512, buffer + i * 1024 + odd);
		settle();
		for (unsigned i = 0; i < N; i++) {
			assert_true(trials[i].calls == 1 && !trials[i].result);
			assert_int_equal((unsigned char)buffer[i * 1024 + odd], i % 251 + 1);
			assert_int_equal((unsigned char)buffer[i * 1024 + odd + 511], i % 251 + 1);
		}
	}
}

static void test_punch_and_zero(void **state)
{
	char *back = buffer + BUFFER / 2;
	uint64_t before, after;

	(void)state;
	memset(buffer, 0x5a, 256 * K);
	assert_int_equal(run(IO_WRITE, 0, 256 * K, buffer), 0);
	assert_int_equal(run(IO_DATASYNC, 0, 0, NULL), 0);
	assert_int_equal(io_allocated(file, &before), 0);
	assert_true(before >= 256 * K);
	assert_int_equal(run(IO_PUNCH, 64 * K + 512, 64 * K, NULL), 0);
	assert_int_equal(run(IO_ZERO, 192 * K + 512, 1024, NULL), 0);
	assert_int_equal(run(IO_READ, 0, 256 * K, back), 0);
	memset(buffer + 64 * K + 512, 0, 64 * K);
	memset(buffer + 192 * K + 512, 0, 1024);
	assert_memory_equal(back, buffer, 256 * K);
	assert_int_equal(io_allocated(file, &after), 0);
	assert_true(after + 56 * K <= before);
}

/* Neither makes the file longer, not even across a ragged end. */
static void test_punch_keeps_length(void **state)
{
	static const enum io_kind kinds[] = { IO_PUNCH, IO_ZERO };
	char ones[10000];

	(void)state;
	memset(ones, 1, sizeof(ones));
	for (unsigned i = 0; i < 2; i++) {
		assert_int_equal(io_pwrite(file, ones, sizeof(ones), 0), 0);
		assert_int_equal(run(kinds[i], 4096, 1024 * K, NULL), 0);
		assert_int_equal(file_size(), sizeof(ones));
		assert_int_equal(run(kinds[i], 4096 * K, 1024 * K, NULL), 0);
		assert_int_equal(file_size(), sizeof(ones));
		assert_int_equal(run(IO_READ, 0, 16 * K, buffer), 0);
		assert_memory_equal(buffer, ones, 4096);
		assert_zeros(buffer + 4096, 12 * K);
		/* What the file grows over later is zero too. */
		assert_int_equal(io_truncate(file, 2048 * K), 0);
		assert_int_equal(run(IO_READ, 0, 1024 * K, buffer), 0);
		assert_zeros(buffer + 4096, 1020 * K);
		assert_int_equal(io_truncate(file, 0), 0);
	}
}

static void test_control_path_any_alignment(void **state)
{
	unsigned char model[40000] = { 0 }, back[40000];
	unsigned seed = 7;

	(void)state;
	assert_int_equal(io_truncate(file, sizeof(model)), 0);
	for (unsigned i = 0; i < 60; i++) {
		size_t at = (size_t)rand_r(&seed) % sizeof(model);
		size_t len = (size_t)rand_r(&seed) % (sizeof(model) - at) % (i % 2 ? 700 : 30000);

		memset(model + at, (int)i + 1, len);
		assert_int_equal(io_pwrite(file, model + at, len, at), 0);
		at = (size_t)rand_r(&seed) % sizeof(model);
		len = sizeof(model) - at;
		assert_int_equal(io_pread(file, back, len, at), 0);
		assert_memory_equal(back, model + at, len);
		if (i % 10)
			continue;
		/* And the operations of the loop see the same bytes. */
		assert_int_equal(run(IO_READ, 0, 39936, buffer), 0);
		assert_memory_equal(buffer, model, 39936);
	}
	assert_int_equal(file_size(), sizeof(model));
}

static void test_next_data(void **state)
{
	uint64_t start, end;

	(void)state;
	assert_int_equal(io_truncate(file, 1024 * K), 0);
	assert_int_equal(io_next_data(file, 0, &start, &end), 0);
	assert_true(start == 1024 * K && end == 1024 * K);
	memset(buffer, 1, 64 * K);
	assert_int_equal(run(IO_WRITE, 512 * K, 64 * K, buffer), 0);
	assert_int_equal(io_next_data(file, 0, &start, &end), 0);
	assert_int_equal(start, 512 * K);
	assert_int_equal(end, 576 * K);
	assert_int_equal(io_next_data(file, 540 * K, &start, &end), 0);
	assert_int_equal(start, 540 * K);
	assert_int_equal(end, 576 * K);
	assert_int_equal(io_next_data(file, 600 * K, &start, &end), 0);
	assert_int_equal(start, 1024 * K);
	assert_int_equal(io_next_data(file, 9000 * K, &start, &end), 0);
	assert_int_equal(start, 1024 * K);
}

/* On these file systems no clone works: the caller must hear the one code that means "copy". */
static void test_clone_refused(void **state)
{
	struct trial trials[2];

	(void)state;
	memset(buffer, 1, 64 * K);
	assert_int_equal(run(IO_WRITE, 0, 64 * K, buffer), 0);
	for (unsigned i = 0; i < 2; i++) {
		memset(&trials[i], 0, sizeof(trials[i]));
		trials[i].op = (struct io_op){ .kind = IO_CLONE, .file = file, .offset = 64 * K, .length = 64 * K,
					       .source = file, .done = trial_done };
		in_flight++;
		io_submit(&trials[i].op);
		settle();
		assert_int_equal(trials[i].calls, 1);
		if (!trials[i].result)
			skip(); /* TMPDIR is on a file system that can */
		assert_int_equal(trials[i].result, -EOPNOTSUPP);
		assert_false(file->can_clone);
	}
}

/* The part before the limit is written, then the error comes up as it is. */
static void test_errors_come_up(void **state)
{
	struct rlimit old, low;

	(void)state;
	signal(SIGXFSZ, SIG_IGN);
	assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
	low = old;
	low.rlim_cur = 64 * K;
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &low), 0);
	memset(buffer, 9, 128 * K);
	assert_int_equal(run(IO_WRITE, 0, 64 * K, buffer), 0);
	assert_int_equal(run(IO_WRITE, 32 * K, 64 * K, buffer), -EFBIG);
	assert_int_equal(run(IO_WRITE, 32 * K, 64 * K, buffer + 1), -EFBIG);
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &old), 0);
	assert_int_equal(run(IO_WRITE, 32 * K, 64 * K, buffer), 0);
}

/* Random operations, up to eight at once on ranges apart, against an array. */
static void test_random(void **state)
{
	enum { SLOTS = 8, SLOT = 64 * 1024 };
	static struct trial trials[SLOTS];
	static char model[SLOTS * SLOT], memory[SLOTS][SLOT + 4096] __attribute__((aligned(4096)));
	unsigned seed = 1;

	(void)state;
	memset(model, 0, sizeof(model));
	for (unsigned round = 0; round < 60; round++) {
		for (unsigned s = 0; s < SLOTS; s++) {
			uint64_t from = (unsigned)rand_r(&seed) % (SLOT / 512);
			uint64_t n = 1 + (unsigned)rand_r(&seed) % (SLOT / 512 - from);
			uint64_t at = s * SLOT + from * 512, len = n * 512;
			char *mine = memory[s] + (rand_r(&seed) % 3 ? 0 : rand_r(&seed) % 600);
			enum io_kind kind = (unsigned)rand_r(&seed) % 4; /* READ, WRITE, ZERO, PUNCH */

			if (kind == IO_WRITE) {
				memset(mine, (int)(round + s + 1), len);
				memcpy(model + at, mine, len);
			} else if (kind != IO_READ) {
				memset(model + at, 0, len);
			}
			start(&trials[s], kind, at, len, mine);
		}
		settle();
		for (unsigned s = 0; s < SLOTS; s++) {
			assert_true(trials[s].calls == 1 && !trials[s].result);
			if (trials[s].op.kind == IO_READ)
				assert_memory_equal(trials[s].op.buffer, model + trials[s].op.offset,
						    trials[s].op.length);
		}
	}
	assert_int_equal(run(IO_READ, 0, sizeof(model), buffer), 0);
	assert_memory_equal(buffer, model, sizeof(model));
}

static void test_without_loop(void **state)
{
	struct io_file *mine;
	char byte = 0;

	(void)state;
	assert_int_equal(io_pwrite(file, "x", 1, 5), 0);
	assert_int_equal(io_open(NULL, NULL, path, IO_RDONLY, &mine, NULL), 0);
	assert_int_equal(io_pread(mine, &byte, 1, 5), 0);
	assert_int_equal(byte, 'x');
	assert_int_equal(io_pwrite(mine, "y", 1, 5), -EBADF);
	io_close(mine);
}

static void test_open_refuses(void **state)
{
	const struct io_ops *module = io_module_find(where->module);
	struct io_file *mine = NULL;
	struct ploop_error err;

	(void)state;
	assert_int_equal(io_open(loop, module, path, IO_RDWR | IO_CREATE, &mine, &err), -EEXIST);
	assert_int_equal(err.status, PLOOP_EXIT_CREAT);
	assert_non_null(strstr(err.text, path));
	assert_int_equal(io_open(loop, module, "/no/such/file", IO_RDONLY, &mine, &err), -ENOENT);
	assert_int_equal(err.status, PLOOP_EXIT_OPEN);
	assert_int_equal(io_open(loop, module, "/dev/null", IO_RDONLY, &mine, &err), -EINVAL);
	assert_non_null(strstr(err.text, "regular"));
	assert_null(mine);
}

/* The automatic choice, also where the file had to be made before direct I/O was seen not to work. */
static void test_choice(void **state)
{
	struct io_file *mine;
	struct loop *ring;

	(void)state;
	assert_int_equal(unlink(path), 0);
	assert_int_equal(loop_new("uring", 8, &ring, NULL), 0);
	assert_int_equal(io_open(ring, NULL, path, IO_RDWR | IO_CREATE, &mine, NULL), 0);
	assert_string_equal(mine->ops->name, strcmp(where->folder, "/dev/shm") ? "uring" : "sync");
	io_close(mine);
	assert_int_equal(io_open(ring, NULL, path, IO_RDWR | IO_BUFFERED, &mine, NULL), 0);
	assert_string_equal(mine->ops->name, "sync");
	io_close(mine);
	loop_free(ring);
}

/* A full file system: the code comes up as it is, and the file is good again once there is room. */
static void full_file_system(const char *kind, const char *module)
{
	char folder[] = "/var/tmp/ploop-io-XXXXXX", name[64];

	assert_non_null(mkdtemp(folder));
	if (unshare(CLONE_NEWNS) || mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) ||
	    mount("none", folder, "tmpfs", 0, "size=1m")) {
		rmdir(folder);
		skip();
	}
	snprintf(name, sizeof(name), "%s/file", folder);
	buffer = io_buffer_new(BUFFER);
	assert_int_equal(loop_new(kind, 8, &loop, NULL), 0);
	assert_int_equal(io_open(loop, io_module_find(module), name, IO_RDWR | IO_CREATE | IO_BUFFERED, &file, NULL), 0);
	memset(buffer, 3, BUFFER);
	assert_int_equal(run(IO_WRITE, 0, 512 * K, buffer), 0);
	assert_int_equal(run(IO_WRITE, 512 * K, 1024 * K, buffer), -ENOSPC);
	assert_int_equal(run(IO_PUNCH, 0, 512 * K, NULL), 0);
	assert_int_equal(run(IO_WRITE, 2048 * K, 256 * K, buffer), 0);
	io_close(file);
	loop_free(loop);
	io_buffer_free(buffer, BUFFER);
	assert_int_equal(umount(folder), 0);
	rmdir(folder);
}

static void test_full_sync(void **state)
{
	(void)state;
	full_file_system("poll", "sync");
}

static void test_full_uring(void **state)
{
	(void)state;
	full_file_system("uring", "uring");
}

static const struct {
	const char *name;
	CMUnitTestFunction run;
} cases[] = {
	{ "facts", test_facts },
	{ "write and read", test_write_and_read },
	{ "read beyond the end", test_read_beyond_end },
	{ "misaligned memory", test_misaligned_memory },
	{ "many at once", test_many_at_once },
	{ "punch and zero", test_punch_and_zero },
	{ "punch keeps the length", test_punch_keeps_length },
	{ "control path at any alignment", test_control_path_any_alignment },
	{ "next data", test_next_data },
	{ "clone refused", test_clone_refused },
	{ "errors come up", test_errors_come_up },
	{ "random operations", test_random },
	{ "without a loop", test_without_loop },
	{ "open refuses", test_open_refuses },
	{ "choice of the module", test_choice },
};

#define CASES (sizeof(cases) / sizeof(cases[0]))
#define WHERES (sizeof(wheres) / sizeof(wheres[0]))

int main(void)
{
	static struct CMUnitTest tests[CASES * WHERES + 2];
	static char names[CASES * WHERES][80];
	size_t n = 0;
	bool ring = !io_module_find("uring")->usable(NULL);

	if (!ring)
		puts("# io_uring is forbidden here: only the sync module on the poll loop is tested");
	for (size_t w = 0; w < WHERES; w++) {
		if (!ring && strcmp(wheres[w].loop, "poll"))
			continue;
		for (size_t c = 0; c < CASES; c++) {
			if (!ring && cases[c].run == test_choice)
				continue;
			snprintf(names[n], sizeof(names[n]), "%s: %s", wheres[w].name, cases[c].name);
			tests[n] = (struct CMUnitTest){ names[n], cases[c].run, setup, teardown,
							(void *)(uintptr_t)&wheres[w] };
			n++;
		}
	}
	tests[n++] = (struct CMUnitTest)cmocka_unit_test(test_full_sync);
	if (ring)
		tests[n++] = (struct CMUnitTest)cmocka_unit_test(test_full_uring);
	return _cmocka_run_group_tests("io-file", tests, n, NULL, NULL);
}
