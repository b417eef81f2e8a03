/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* apart.c - see apart.h. */
#include "export/apart.h"

#include <linux/close_range.h>
#include <pthread.h>
#include <stdbool.h>
#include <sys/syscall.h>
#include <unistd.h>

#define FIRST (STDERR_FILENO + 1)

struct apart {
	void (*work)(void *data);
	void *data;
	int keep;
};

static int close_all(int first, unsigned last, unsigned flags)
{
	return (int)syscall(SYS_close_range, (unsigned)first, last, flags);
}

/* False on a kernel that cannot (5.8): the table is still that of all threads then, and whole. */
static bool take_table(int keep)
{
	if (close_all(keep < FIRST ? FIRST : keep + 1, ~0U, CLOSE_RANGE_UNSHARE) < 0)
		return false;
	if (keep > FIRST)
		(void)close_all(FIRST, (unsigned)keep - 1, 0);
	return true;
}

static void *run(void *data)
{
	const struct apart *apart = data;
	bool own = take_table(apart->keep);

	apart->work(apart->data);
	/* Here and not at the end of the thread, which may be later than whoever waits for it goes on. */
	if (own && apart->keep >= 0)
		close(apart->keep);
	return NULL;
}

int apart_run(void (*work)(void *data), void *data, int keep)
{
	struct apart apart = { .work = work, .data = data, .keep = keep };
	pthread_t thread;
	int r = pthread_create(&thread, NULL, run, &apart);

	if (r == 0)
		r = pthread_join(thread, NULL);
	return -r;
}
