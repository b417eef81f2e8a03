/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* loop.h on both kinds that live in real time: tasks, timers, watches, stop. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>

#include <errno.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <ploop/ploop.h>

#include "io/loop.h"

#define MS UINT64_C(1000000)

static struct loop *loop;
static char order[64];

static void note(char c)
{
	size_t n = strlen(order);

	assert_true(n + 1 < sizeof(order));
	order[n] = c;
}

static int setup(void **state)
{
	memset(order, 0, sizeof(order));
	return loop_new(*state, 8, &loop, NULL);
}

static int teardown(void **state)
{
	(void)state;
	loop_free(loop);
	return 0;
}

struct letter {
	struct loop_task task;
	struct loop_timer timer;
	struct loop_watch watch;
	char name;
	unsigned again;
	struct letter *cancels;
	bool stops;
};

static void letter_run(struct loop_task *task)
{
	struct letter *self = container_of(task, struct letter, task);

	note(self->name);
	if (self->again--)
		loop_defer(loop, task);
}

static void test_tasks(void **state)
{
	struct letter a = { .task = { .run = letter_run }, .name = 'a', .again = 1 };
	struct letter b = { .task = { .run = letter_run }, .name = 'b' };

	(void)state;
	loop_defer(loop, &a.task);
	loop_defer(loop, &b.task);
	loop_defer(loop, &a.task);
	/* Work is left after it: the turn must not sleep. */
	assert_int_equal(loop_turn(loop, UINT64_MAX), 0);
	assert_string_equal(order, "ab");
	assert_int_equal(loop_turn(loop, 0), 0);
	assert_string_equal(order, "aba");
	assert_int_equal(loop_turn(loop, 0), 0);
	assert_string_equal(order, "aba");
}

static void letter_expired(struct loop_timer *timer)
{
	struct letter *self = container_of(timer, struct letter, timer);

	note(self->name);
	if (self->cancels)
		loop_timer_cancel(loop, &self->cancels->timer);
	if (self->again) {
		self->again--;
		loop_timer_set(loop, timer, 0);
	}
	if (self->stops)
		loop_stop(loop);
}

static void test_timers(void **state)
{
	struct letter d = { .timer = { .expired = letter_expired }, .name = 'd', .stops = true };
	struct letter c = { .timer = { .expired = letter_expired }, .name = 'c' };
	struct letter b = { .timer = { .expired = letter_expired }, .name = 'b', .cancels = &c };
	struct letter a = { .timer = { .expired = letter_expired }, .name = 'a', .again = 2 };
	uint64_t start = loop_now(loop);

	(void)state;
	loop_timer_set(loop, &d.timer, 1);
	loop_timer_set(loop, &b.timer, 100 * MS);
	loop_timer_set(loop, &c.timer, 100 * MS + 100);
	loop_timer_set(loop, &a.timer, 5 * MS);
	loop_timer_set(loop, &d.timer, 150 * MS);
	assert_int_equal(loop_run(loop), 0);
	assert_string_equal(order, "aaabd");
	assert_true(loop_now(loop) - start >= 150 * MS);
	assert_true(loop_now(loop) - start < 2000 * MS);
}

static void test_timer_far(void **state)
{
	struct letter a = { .timer = { .expired = letter_expired }, .name = 'a' };

	(void)state;
	loop_timer_set(loop, &a.timer, UINT64_MAX);
	assert_int_equal(loop_turn(loop, MS), 0);
	assert_string_equal(order, "");
	loop_timer_cancel(loop, &a.timer);
	assert_true(list_empty(&loop->timers));
}

static void letter_ready(struct loop_watch *watch, int revents)
{
	struct letter *self = container_of(watch, struct letter, watch);
	char byte;

	note(self->name);
	if (revents == -EBADF)
		note('!');
	else
		assert_true(revents & POLLIN);
	if (self->cancels)
		loop_watch_remove(loop, &self->cancels->watch);
	if (self->again) {
		self->again--;
		assert_int_equal(read(watch->fd, &byte, 1), 1);
		assert_int_equal(loop_watch_add(loop, watch), 0);
	}
	if (self->stops)
		loop_stop(loop);
}

static void turns(unsigned n)
{
	while (n--)
		assert_int_equal(loop_turn(loop, MS), 0);
}

static void test_watch_is_one_shot(void **state)
{
	struct letter a = { .watch = { .events = POLLIN, .ready = letter_ready }, .name = 'a', .again = 2 };
	int fds[2];

	(void)state;
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
	a.watch.fd = fds[0];
	assert_int_equal(loop_watch_add(loop, &a.watch), 0);
	turns(2);
	assert_string_equal(order, "");
	assert_int_equal(write(fds[1], "xyz", 3), 3);
	turns(8);
	/* Twice with a byte read and watched again, once more, then nobody watches the byte that is left. */
	assert_string_equal(order, "aaa");
	assert_false(a.watch.armed);
	close(fds[0]);
	close(fds[1]);
}

static void test_watch_removed(void **state)
{
	struct letter a = { .watch = { .events = POLLIN, .ready = letter_ready }, .name = 'a' };
	struct letter b = { .watch = { .events = POLLIN, .ready = letter_ready }, .name = 'b' };
	int fds[2];

	(void)state;
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
	a.watch.fd = b.watch.fd = fds[0];
	a.cancels = &b;
	b.cancels = &a;
	/* Both are ready at once; whichever runs first removes the other, which must not run. */
	assert_int_equal(loop_watch_add(loop, &a.watch), 0);
	assert_int_equal(loop_watch_add(loop, &b.watch), 0);
	turns(1);
	assert_int_equal(write(fds[1], "x", 1), 1);
	turns(4);
	assert_int_equal(strlen(order), 1);
	assert_false(a.watch.armed || b.watch.armed);
	/* Removed before the kernel ever heard of it, and after. */
	a.cancels = NULL;
	assert_int_equal(loop_watch_add(loop, &a.watch), 0);
	loop_watch_remove(loop, &a.watch);
	loop_watch_remove(loop, &a.watch);
	turns(3);
	assert_int_equal(strlen(order), 1);
	close(fds[0]);
	close(fds[1]);
}

static void test_watch_memory_is_gone(void **state)
{
	int fds[2];

	(void)state;
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
	for (unsigned i = 0; i < 2000; i++) {
		struct letter *a = test_malloc(sizeof(*a));

		*a = (struct letter){ .watch = { .fd = fds[0], .events = POLLIN, .ready = letter_ready } };
		assert_int_equal(loop_watch_add(loop, &a->watch), 0);
		turns(i % 3 == 0);
		loop_watch_remove(loop, &a->watch);
		memset(a, 0xff, sizeof(*a));
		test_free(a);
		/* The slots come back with the kernel's answers. */
		assert_int_equal(loop_turn(loop, 0), 0);
	}
	assert_int_equal(write(fds[1], "x", 1), 1);
	turns(4);
	assert_string_equal(order, "");
	close(fds[0]);
	close(fds[1]);
}

static void test_watch_bad_fd(void **state)
{
	struct letter a = { .watch = { .fd = 1000000, .events = POLLIN, .ready = letter_ready }, .name = 'a' };

	(void)state;
	assert_int_equal(loop_watch_add(loop, &a.watch), 0);
	turns(3);
	assert_string_equal(order, "a!");
}

static void test_stop_before_run(void **state)
{
	(void)state;
	loop_stop(loop);
	assert_int_equal(loop_run(loop), 0);
}

static void test_unknown_kind(void **state)
{
	struct ploop_error err;
	struct loop *none = NULL;

	(void)state;
	assert_int_equal(loop_new("steam", 8, &none, &err), -EINVAL);
	assert_non_null(strstr(err.text, "steam"));
	assert_null(none);
}

#define ON(kind, test) { #test " on " kind, test, setup, teardown, (void *)(uintptr_t)kind }
#define ALL(kind)                                                                                                 \
	ON(kind, test_tasks), ON(kind, test_timers), ON(kind, test_timer_far), ON(kind, test_watch_is_one_shot),  \
		ON(kind, test_watch_removed), ON(kind, test_watch_memory_is_gone), ON(kind, test_watch_bad_fd),   \
		ON(kind, test_stop_before_run)

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(test_unknown_kind), ALL("poll"), ALL("uring") };
	size_t n = sizeof(tests) / sizeof(tests[0]);

	if (loop_new("uring", 8, &loop, NULL)) {
		puts("# io_uring is forbidden here: the loop on it is not tested");
		n = (n + 1) / 2;
	} else {
		loop_free(loop);
	}
	return _cmocka_run_group_tests("io-loop", tests, n, NULL, NULL);
}
