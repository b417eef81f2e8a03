/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The FUSE front end on a real loop device, over a device of memory that answers a little later. The loop runs
 * in this thread; what uses /dev/loopN runs in another.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <poll.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <ploop/ploop.h>

#include "device/device.h"
#include "export/export.h"
#include "export/loopdev.h"
#include "io/loop.h"

#define MIB (1024u * 1024)
#define DISK (32 * MIB)

/* A device of memory in the place of the engine. */

struct device {
	struct loop *loop;
	char *memory;
	uint64_t size;
	struct list todo;
	struct loop_timer timer;
	unsigned flushes, discards, zeroes, most_at_once, fail;
};

static struct device fake;

static int fake_do(struct device_request *request)
{
	char *at = fake.memory + request->offset;

	if (fake.fail)
		return -(int)fake.fail;
	switch (request->kind) {
	case DEVICE_READ:
		memcpy(request->buffer, at, request->length);
		break;
	case DEVICE_WRITE:
		memcpy(at, request->buffer, request->length);
		break;
	case DEVICE_DISCARD:
		fake.discards++;
		memset(at, 0, request->length);
		break;
	case DEVICE_WRITE_ZEROES:
		fake.zeroes++;
		memset(at, 0, request->length);
		break;
	case DEVICE_FLUSH:
		fake.flushes++;
		break;
	}
	return 0;
}

static void fake_run(struct loop_timer *timer)
{
	struct list now, *node;
	unsigned n = 0;

	(void)timer;
	list_init(&now);
	list_move_all(&now, &fake.todo);
	for (; (node = list_pop(&now)); n++) {
		struct device_request *request = container_of(node, struct device_request, node);

		request->done(request, fake_do(request));
	}
	if (n > fake.most_at_once)
		fake.most_at_once = n;
}

void device_submit(struct device *device, struct device_request *request)
{
	/* As a hole that is read: answered at once. */
	if (request->kind == DEVICE_READ && request->offset % (8 * MIB) == 4096) {
		request->done(request, fake_do(request));
		return;
	}
	list_push_back(&device->todo, &request->node);
	if (!device->timer.armed)
		loop_timer_set(device->loop, &device->timer, 200000);
}

uint32_t device_cluster(const struct device *device)
{
	(void)device;
	return 1u << 20;
}

uint64_t device_size(const struct device *device)
{
	return device->size;
}

/* A device that is served while a function runs on another thread. */

static struct loop *loop;
static struct export *export;
static struct export_config config;
static struct ploop_error err;
static char node[64];
static int answer;
static bool answered;
static unsigned gone;

static void on_answer(void *data, int result)
{
	(void)data;
	answer = result;
	answered = true;
	loop_stop(loop);
}

static void on_gone(void *data)
{
	(void)data;
	gone++;
}

static int wait_answer(void)
{
	while (!answered)
		assert_int_equal(loop_run(loop), 0);
	answered = false;
	return answer;
}

static int start(void)
{
	config = (struct export_config){ .loop = loop, .device = &fake, .name = "ploop-test", .gone = on_gone,
					 .read_only = config.read_only, .depth = config.depth };
	if (export_find("fuse")->start(&config, on_answer, NULL, &export, &err))
		fail_msg("%s", err.text);
	if (wait_answer())
		fail_msg("%s", err.text);
	snprintf(node, sizeof(node), "%s", export->ops->node(export));
	return 0;
}

static int stop(bool force)
{
	export->ops->stop(export, force, on_answer, NULL);
	return wait_answer();
}

static int setup(void **state)
{
	gone = 0;
	config = (struct export_config){ 0 };
	fake = (struct device){ .memory = io_buffer_new(DISK), .size = DISK, .timer.expired = fake_run };
	list_init(&fake.todo);
	if (loop_new(*state, 32, &loop, NULL))
		return -1;
	fake.loop = loop;
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	loop_free(loop);
	io_buffer_free(fake.memory, DISK);
	return 0;
}

struct errand {
	void (*run)(void);
	int event;
	struct loop_watch watch;
};

static void errand_over(struct loop_watch *watch, int revents)
{
	(void)watch;
	(void)revents;
	loop_stop(loop);
}

static void *errand_thread(void *data)
{
	struct errand *errand = data;
	uint64_t one = 1;

	errand->run();
	(void)!write(errand->event, &one, sizeof(one));
	return NULL;
}

/* What goes wrong there is noted, as an assertion of cmocka may only fail in the main thread. */
static char trouble[200];

#define expect(what)                                                                                   \
	do {                                                                                           \
		if (!(what) && !trouble[0])                                                            \
			snprintf(trouble, sizeof(trouble), "line %d: %s, errno %d", __LINE__, #what, errno); \
	} while (0)

static void meanwhile(void (*run)(void))
{
	struct errand errand = { .run = run, .event = eventfd(0, EFD_CLOEXEC), .watch.ready = errand_over };
	pthread_t thread;

	trouble[0] = 0;
	errand.watch.fd = errand.event;
	errand.watch.events = POLLIN;
	assert_int_equal(loop_watch_add(loop, &errand.watch), 0);
	assert_int_equal(pthread_create(&thread, NULL, errand_thread, &errand), 0);
	assert_int_equal(loop_run(loop), 0);
	pthread_join(thread, NULL);
	close(errand.event);
	if (trouble[0])
		fail_msg("%s", trouble);
}

/* The tests */

static void use_read_write(void)
{
	int fd = open(node, O_RDWR | O_DIRECT | O_CLOEXEC);
	char *out = io_buffer_new(2 * MIB), *in = io_buffer_new(2 * MIB);
	char backing[128];
	uint64_t size = 0;
	int block = 0;
	FILE *file;

	expect(fd >= 0);
	expect(!ioctl(fd, BLKGETSIZE64, &size) && size == DISK);
	expect(!ioctl(fd, BLKSSZGET, &block) && block == 512);
	snprintf(backing, sizeof(backing), "/sys/block/%s/loop/backing_file", strrchr(node, '/') + 1);
	file = fopen(backing, "re");
	expect(file && fgets(backing, sizeof(backing), file) && !strcmp(backing, "/ploop-test\n"));
	fclose(file);
	for (unsigned i = 0; i < 2 * MIB; i++)
		out[i] = (char)(i * 31 + i / 4096);
	expect(pwrite(fd, out, 2 * MIB, 512) == 2 * MIB);
	expect(pwrite(fd, out, 512, DISK - 512) == 512);
	expect(pread(fd, in, 2 * MIB, 512) == 2 * MIB);
	expect(!memcmp(in, out, 2 * MIB));
	expect(pread(fd, in, 4096, 8 * MIB + 4096) == 4096);
	expect(!fsync(fd));
	expect(fake.flushes >= 1);
	close(fd);
	expect(!memcmp(fake.memory + 512, out, 2 * MIB));
	expect(!memcmp(fake.memory + DISK - 512, out, 512));
	io_buffer_free(out, 2 * MIB);
	io_buffer_free(in, 2 * MIB);
}

static void test_read_write(void **state)
{
	(void)state;
	start();
	meanwhile(use_read_write);
	assert_int_equal(stop(false), 0);
	assert_false(loopdev_attached(node));
	assert_int_equal(gone, 0);
}

static void use_discard(void)
{
	uint64_t range[2] = { MIB, MIB }, zero[2] = { 4 * MIB, MIB };
	int fd = open(node, O_RDWR | O_CLOEXEC);

	memset(fake.memory, 1, DISK);
	expect(!ioctl(fd, BLKDISCARD, range));
	expect(fake.discards > 0);
	expect(!fake.memory[MIB] && !fake.memory[2 * MIB - 1] && fake.memory[2 * MIB] && fake.memory[MIB - 1]);
	/* Zeroes that may not give blocks back, and zeroes that may. */
	expect(!fallocate(fd, FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE, (off_t)zero[0], (off_t)zero[1]));
	expect(fake.zeroes > 0);
	expect(!fake.memory[4 * MIB] && !fake.memory[5 * MIB - 1] && fake.memory[5 * MIB]);
	close(fd);
}

static void test_discard(void **state)
{
	(void)state;
	start();
	meanwhile(use_discard);
	assert_int_equal(stop(false), 0);
}

static void use_error(void)
{
	int fd = open(node, O_RDWR | O_DIRECT | O_CLOEXEC);
	char *buffer = io_buffer_new(4096);

	fake.fail = EIO;
	expect(pread(fd, buffer, 4096, 0) < 0 && errno == EIO);
	expect(pwrite(fd, buffer, 4096, 0) < 0 && errno == EIO);
	expect(fsync(fd) < 0 && errno == EIO);
	fake.fail = 0;
	expect(pread(fd, buffer, 4096, 0) == 4096);
	close(fd);
	io_buffer_free(buffer, 4096);
}

static void test_errors(void **state)
{
	(void)state;
	start();
	meanwhile(use_error);
	assert_int_equal(stop(false), 0);
}

static void use_read_only(void)
{
	int fd = open(node, O_RDONLY | O_DIRECT | O_CLOEXEC), w = open(node, O_RDWR | O_CLOEXEC), ro = 0;
	char *buffer = io_buffer_new(4096);

	expect(!ioctl(fd, BLKROGET, &ro) && ro);
	expect(pread(fd, buffer, 4096, 0) == 4096);
	expect(w < 0 || pwrite(w, buffer, 512, 0) < 0);
	close(fd);
	if (w >= 0)
		close(w);
	io_buffer_free(buffer, 4096);
}

static void test_read_only(void **state)
{
	(void)state;
	config.read_only = true;
	start();
	meanwhile(use_read_only);
	assert_int_equal(stop(false), 0);
	assert_int_equal(fake.flushes, 0);
}

/* Somebody has it open: stop is refused and changes nothing, not even for the time when it is closed. */
static void test_busy(void **state)
{
	int fd;

	(void)state;
	start();
	fd = open(node, O_RDONLY | O_CLOEXEC);
	assert_true(fd >= 0);
	assert_int_equal(stop(false), -EBUSY);
	close(fd);
	assert_true(loopdev_attached(node));
	meanwhile(use_error);
	assert_int_equal(stop(false), 0);
	assert_false(loopdev_attached(node));
	assert_int_equal(gone, 0);
}

static void test_force(void **state)
{
	char sector[512];
	int fd;

	(void)state;
	start();
	fd = open(node, O_RDONLY | O_CLOEXEC);
	assert_int_equal(stop(true), 0);
	assert_int_equal(pread(fd, sector, 512, 16 * MIB), -1);
	assert_int_equal(errno, EIO);
	close(fd);
	assert_false(loopdev_attached(node));
}

static void use_detach_by_hand(void)
{
	expect(!loopdev_detach(node, &(struct loopdev_identity){ 0 }, false));
}

/* By hand, then taken by somebody else: stop must not touch that. */
static void test_detached_by_hand(void **state)
{
	char file[64], command[256];
	bool taken;

	(void)state;
	start();
	meanwhile(use_detach_by_hand);
	while (!gone)
		assert_int_equal(loop_turn(loop, 1000000), 0);
	assert_int_equal(gone, 1);
	snprintf(file, sizeof(file), "/var/tmp/ploop-loop-%d", getpid());
	snprintf(command, sizeof(command), "truncate -s 1M %s && losetup %s %s", file, node, file);
	taken = !system(command);
	assert_int_equal(stop(false), 0);
	assert_int_equal(gone, 1);
	if (taken) {
		assert_true(loopdev_attached(node));
		assert_int_equal(loopdev_detach(node, &(struct loopdev_identity){ 0 }, false), 0);
	}
	unlink(file);
}

static void use_grown(void)
{
	int fd = open(node, O_RDWR | O_DIRECT | O_CLOEXEC);
	char *buffer = io_buffer_new(4096);
	uint64_t size = 0;

	expect(!ioctl(fd, BLKGETSIZE64, &size) && size == DISK);
	memset(buffer, 7, 4096);
	expect(pwrite(fd, buffer, 4096, DISK - 4096) == 4096);
	expect(fake.memory[DISK - 1] == 7);
	close(fd);
	io_buffer_free(buffer, 4096);
}

static void test_resized(void **state)
{
	(void)state;
	fake.size = DISK / 2;
	start();
	fake.size = DISK;
	export->ops->resized(export, on_answer, NULL);
	assert_int_equal(wait_answer(), 0);
	meanwhile(use_grown);
	assert_int_equal(stop(false), 0);
}

/* Many at once, more than the pool has requests, and all reach the device together. */
static void use_load(void)
{
	char command[300];

	snprintf(command, sizeof(command),
		 "fio --name=t --filename=%s --ioengine=io_uring --iodepth=32 --direct=1 --rw=randrw --bsrange=512-256k "
		 "--blockalign=512 --size=%u --io_size=64m --verify=crc32c --verify_fatal=1 --verify_state_save=0 >/dev/null 2>&1",
		 node, DISK);
	expect(!system(command));
}

static void load(unsigned depth)
{
	if (system("command -v fio >/dev/null"))
		skip();
	config.depth = depth;
	start();
	meanwhile(use_load);
	assert_int_equal(stop(false), 0);
}

static void test_load(void **state)
{
	(void)state;
	load(0);
	assert_true(fake.most_at_once > 2);
}

static void test_load_starved(void **state)
{
	(void)state;
	load(2);
	assert_true(fake.most_at_once <= 2);
}

/* A server that is killed leaves a loop device that gives errors and can be detached, and nothing else. */
static void test_killed(void **state)
{
	char sector[512], where[64] = "";
	int pipes[2], fd;
	pid_t pid;

	assert_int_equal(pipe2(pipes, O_CLOEXEC), 0);
	pid = fork();
	assert_true(pid >= 0);
	if (!pid) {
		loop_free(loop);
		if (loop_new(*state, 32, &loop, NULL))
			_exit(1);
		fake.loop = loop;
		start();
		(void)!write(pipes[1], node, sizeof(node));
		loop_run(loop);
		_exit(0);
	}
	assert_int_equal(read(pipes[0], where, sizeof(where)), sizeof(where));
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
	fd = open(where, O_RDONLY | O_CLOEXEC);
	assert_true(fd >= 0);
	assert_int_equal(pread(fd, sector, 512, 16 * MIB), -1);
	close(fd);
	assert_int_equal(loopdev_detach(where, &(struct loopdev_identity){ 0 }, false), 0);
	assert_false(loopdev_attached(where));
	close(pipes[0]);
	close(pipes[1]);
}

/* Another server takes the device over: after the first has left, or when it is stopped in the middle of requests. */

static struct export_kept kept;

static void keep(void)
{
	assert_int_equal(export->ops->keep(export, &kept), 0);
	for (unsigned i = 0; i < kept.nfds; i++)
		kept.fds[i] = fcntl(kept.fds[i], F_DUPFD_CLOEXEC, 3);
}

static void adopt(void)
{
	if (export_find("fuse")->adopt(&config, &kept, on_answer, NULL, &export, &err))
		fail_msg("%s", err.text);
	assert_int_equal(wait_answer(), 0);
	assert_string_equal(export->ops->node(export), node);
}

static void on_left(void *data)
{
	on_answer(data, 0);
}

static void test_leave(void **state)
{
	(void)state;
	start();
	for (unsigned i = 0; i < 3; i++) {
		keep();
		meanwhile(use_error);
		export->ops->leave(export, on_left, NULL);
		assert_int_equal(wait_answer(), 0);
		adopt();
	}
	meanwhile(use_read_write);
	assert_int_equal(stop(false), 0);
	assert_false(loopdev_attached(node));
	assert_int_equal(gone, 0);
}

/* What takes the request and dies. */
static pid_t start_victim(void)
{
	pid_t pid = fork();

	if (!pid) {
		loop_free(loop);
		if (loop_new(NULL, 32, &loop, NULL))
			_exit(1);
		config.loop = fake.loop = loop;
		/* It is never answered. */
		fake.timer.armed = true;
		if (export_find("fuse")->adopt(&config, &kept, on_answer, NULL, &export, &err) || wait_answer())
			_exit(1);
		loop_run(loop);
		_exit(0);
	}
	return pid;
}

static char *lost;

static void *use_lost(void *data)
{
	int fd = open(node, O_RDWR | O_DIRECT | O_CLOEXEC);

	(void)data;
	for (unsigned i = 0; i < 8; i++)
		expect(pwrite(fd, lost + i * 4096, 4096, MIB + i * 4096) == 4096);
	expect(!fsync(fd));
	close(fd);
	return NULL;
}

static void test_resend(void **state)
{
	pthread_t thread;
	pid_t victim;

	(void)state;
	start();
	keep();
	if (!kept.any_time) {
		assert_int_equal(stop(false), 0);
		skip();
	}
	export->ops->leave(export, on_left, NULL);
	assert_int_equal(wait_answer(), 0);
	victim = start_victim();
	lost = io_buffer_new(8 * 4096);
	memset(lost, 5, 8 * 4096);
	trouble[0] = 0;
	assert_int_equal(pthread_create(&thread, NULL, use_lost, NULL), 0);
	/* Until the victim has the request, or nobody has: it comes back, or comes for the first time. */
	usleep(200000);
	kill(victim, SIGKILL);
	waitpid(victim, NULL, 0);
	adopt();
	while (pthread_tryjoin_np(thread, NULL))
		assert_int_equal(loop_turn(loop, 1000000), 0);
	if (trouble[0])
		fail_msg("%s", trouble);
	assert_memory_equal(fake.memory + MIB, lost, 8 * 4096);
	io_buffer_free(lost, 8 * 4096);
	assert_int_equal(stop(false), 0);
}

static void test_adopt_nonsense(void **state)
{
	struct export_kept nonsense = { .text = "2 /dev/loop0 1 2 00", .nfds = 2 };

	(void)state;
	config = (struct export_config){ .loop = loop, .device = &fake, .name = "ploop-test" };
	for (unsigned i = 0; i < 2; i++)
		nonsense.fds[i] = open("/dev/null", O_RDONLY | O_CLOEXEC);
	assert_int_equal(export_find("fuse")->adopt(&config, &nonsense, on_answer, NULL, &export, &err), -EPROTO);
	assert_int_equal(fcntl(nonsense.fds[0], F_GETFD), -1);
	assert_int_equal(fcntl(nonsense.fds[1], F_GETFD), -1);
}

static void test_null(void **state)
{
	(void)state;
	config.loop = loop;
	config.name = "ploop-test";
	assert_int_equal(export_find("null")->start(&config, on_answer, NULL, &export, &err), 0);
	assert_int_equal(wait_answer(), 0);
	assert_string_equal(export->ops->node(export), "");
	assert_int_equal(stop(false), 0);
	assert_null(export_find("carrier pigeon"));
}

#define ON(kind, test) { #test " on " kind, test, setup, teardown, (void *)(uintptr_t)kind }
#define ALL(kind)                                                                                              \
	ON(kind, test_read_write), ON(kind, test_discard), ON(kind, test_errors), ON(kind, test_read_only),    \
		ON(kind, test_busy), ON(kind, test_force), ON(kind, test_detached_by_hand),                    \
		ON(kind, test_resized), ON(kind, test_load), ON(kind, test_load_starved), ON(kind, test_killed),    \
		ON(kind, test_leave), ON(kind, test_resend), ON(kind, test_adopt_nonsense)

int main(void)
{
	const struct CMUnitTest null_test[] = { ON("poll", test_null) };
	const struct CMUnitTest tests[] = { ON("poll", test_null), ALL("poll"), ALL("uring") };
	size_t n = sizeof(tests) / sizeof(tests[0]);

	if (export_find("fuse")->usable(&err)) {
		printf("# only the null front end is tested: %s\n", err.text);
		return cmocka_run_group_tests(null_test, NULL, NULL);
	}
	if (loop_new("uring", 8, &loop, NULL)) {
		puts("# io_uring is forbidden here: not tested");
		n = (n + 1) / 2;
	} else {
		loop_free(loop);
	}
	return _cmocka_run_group_tests("export-fuse", tests, n, NULL, NULL);
}
