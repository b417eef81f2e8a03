/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* check-space.c - clusters of the file that nothing points to, and giving their blocks back. */
#include <errno.h>

#include "base/checked.h"
#include "base/error.h"
#include "io/loop.h"
#include "job/check-private.h"

struct punch {
	struct io_op op;
	bool done;
	int result;
};

static void punch_done(struct io_op *op, int result)
{
	struct punch *punch = container_of(op, struct punch, op);

	punch->done = true;
	punch->result = result;
}

static int punch_range(struct io_file *file, uint64_t offset, uint64_t length)
{
	struct punch punch = {
		.op = { .kind = IO_PUNCH, .file = file, .offset = offset, .length = length, .done = punch_done },
	};
	int r = 0;

	io_submit(&punch.op);
	while (!punch.done && !r)
		r = loop_turn(file->loop, UINT64_MAX);
	return punch.done ? punch.result : r;
}

/* Bytes between the two offsets that take up blocks. */
static int count_data(struct io_file *file, uint64_t start, uint64_t end, uint64_t *ret)
{
	uint64_t from, to, sum = 0;
	int r;

	for (; start < end; start = to) {
		r = io_next_data(file, start, &from, &to);
		if (r)
			return r;
		if (from >= end || to <= start)
			break;
		sum += min_u64(to, end) - max_u64(from, start);
	}
	*ret = sum;
	return 0;
}

static int cut_tail(struct check *check, uint64_t place, uint64_t offset, uint64_t data)
{
	struct check_where where = { CHECK_NOWHERE, place, check->size - offset };
	int r;

	if (!check_found(check, PLOOP_CHECK_TAIL, where, "%s: %llu bytes at the end of the file hold nothing",
			 check_level(check) ? "Trimming tail" : "Want to trim tail", (unsigned long long)where.bytes)) {
		check->image->leaked += data;
		return 0;
	}
	r = io_truncate(check->file, offset);
	if (!r)
		check->size = offset;
	return r;
}

static int release(struct check *check, uint64_t place, uint64_t end, uint64_t data)
{
	struct check_where where = { CHECK_NOWHERE, place, data };
	uint64_t offset = geometry_offset(&check->g, (uint32_t)place);

	if (!data)
		return 0;
	if (check_found(check, PLOOP_CHECK_LEAK, where,
			"Hole at block %llu: %llu clusters that nothing uses hold %llu bytes",
			(unsigned long long)place, (unsigned long long)(end - place), (unsigned long long)data))
		return punch_range(check->file, offset, (end - place) * check->g.cluster);
	check->image->leaked += data;
	return 0;
}

/* One run of clusters that nothing points to. */
static int free_run(struct check *check, uint64_t place, uint64_t end)
{
	uint64_t offset = geometry_offset(&check->g, (uint32_t)place), stop, data;
	bool tail = end == check->places;
	int r;

	stop = tail ? check->size : offset + (end - place) * check->g.cluster;
	r = count_data(check->file, offset, stop, &data);
	if (r)
		return r;
	return tail ? cut_tail(check, place, offset, data) : release(check, place, end, data);
}

int check_space(struct check *check)
{
	uint64_t place = check->g.first, end;
	int r = 0;

	/* A dropped extension is kept out of this run's reach by rule 5; one that stays is in use. */
	for (end = bitmap_next_set(&check->extension, 0); end < check->extension.bits;
	     end = bitmap_next_set(&check->extension, end + 1))
		bitmap_set(&check->used, end);
	for (; !r && place < check->places; place = end) {
		place = bitmap_next_clear(&check->used, place);
		if (place >= check->places)
			break;
		end = min_u64(bitmap_next_set(&check->used, place), check->places);
		r = free_run(check, place, end);
	}
	if (!r && (check->image->fixed[PLOOP_CHECK_LEAK] || check->image->fixed[PLOOP_CHECK_TAIL]))
		r = io_sync(check->file);
	if (r)
		return error_sys(check->err, r, PLOOP_EXIT_WRITE, "%s: cannot give space back", check->file->path);
	return 0;
}
