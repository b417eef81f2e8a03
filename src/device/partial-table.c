/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * partial-table.c - how the table of partial clusters comes, goes, and is read at open.
 *
 *	OFF --> WRITE --> BLANK --> NAME --> FREE --> ON     comes
 *	 ^                                             |
 *	 +---- FREE <-- NAME <-- WRITE <---------------+     goes
 *
 * WRITE, NAME and FREE from ON to ON, or from OFF to OFF, when the dirty bitmaps have become others (cbt.h).
 *
 *	WRITE  the new extension, in a cluster of its own: if there is anything in it
 *	BLANK  zeros to all pages of the table
 *	NAME   the header names the new extension: a commit with index page 0, which makes all of the above durable first
 *	FREE   the old extension's cluster, and that of a table that has gone, are punched; they are free after the next commit
 *
 * A failure before NAME leaves things as they were, and it is tried again later.
 */
#include <errno.h>
#include <string.h>

#include "base/checked.h"
#include "base/error.h"
#include "device/internal.h"
#include "device/partial.h"

#define TABLE_RETRY_NS UINT64_C(1000000000)

static uint32_t cluster_at(const struct geometry *g, uint64_t offset)
{
	return (uint32_t)(((int64_t)offset - g->base) / g->cluster);
}

/* Whether there was a table when this began. */
static bool was_on(const struct partials *partials)
{
	return partials->turning_on == partials->staying;
}

static struct writer *writer_of(const struct partials *partials)
{
	return partials->writer ? partials->writer : partials->device->writer;
}

static void table_end(struct partials *partials, enum partial_table_step step)
{
	struct list woken;
	struct list *node;

	if (partials->buffer)
		io_buffer_free(partials->buffer, partials->device->cluster);
	partials->buffer = NULL;
	partials->step = step;
	if (step == TABLE_OFF)
		partials->writer = NULL;
	list_init(&woken);
	list_move_all(&woken, &partials->waiting);
	while ((node = list_pop(&woken)) != NULL) {
		struct device_request *request = container_of(node, struct device_request, wait);

		request->waiting = false;
		request_continue(request);
	}
	partials_poke(partials);
}

/* Those who wait for the bitmaps. What they asked for after this began comes next. */
static void table_over(struct partials *partials, int result)
{
	struct list woken;
	struct list *node;

	if (!partials->staying || partials->replant)
		return;
	list_init(&woken);
	list_move_all(&woken, &partials->planting);
	while ((node = list_pop(&woken)) != NULL) {
		struct cbt_plant *plant = container_of(node, struct cbt_plant, node);

		plant->done(plant, result);
	}
}

static void table_failed(struct partials *partials, int result)
{
	struct alloc *alloc = &writer_of(partials)->alloc;

	if (partials->extension)
		alloc_untake(alloc, partials->extension, 1);
	if (partials->turning_on && !was_on(partials) && partials->table_cluster)
		alloc_untake(alloc, partials->table_cluster, 1);
	partials->again_at = loop_now(partials->device->loop) + TABLE_RETRY_NS;
	if (!partials->turning_on && was_on(partials))
		partials->error = result;
	table_over(partials, result);
	table_end(partials, was_on(partials) ? TABLE_ON : TABLE_OFF);
}

static void table_io(struct partials *partials, enum partial_table_step step, enum io_kind kind, uint64_t offset,
		     uint64_t length)
{
	struct io_op *op = &partials->op;

	partials->step = step;
	op->kind = kind;
	op->file = writer_of(partials)->delta->file;
	op->offset = offset;
	op->length = length;
	op->buffer = partials->buffer;
	device_io(partials->device, op);
}

/* Punches what is useless, one after the other. */
static void table_free(struct partials *partials)
{
	const struct geometry *g = &partials->next;
	uint32_t k = partials->useless[0] ? partials->useless[0] : partials->useless[1];

	if (k) {
		table_io(partials, TABLE_FREE, IO_PUNCH, geometry_offset(g, k), g->cluster);
		return;
	}
	table_over(partials, 0);
	table_end(partials, partials->turning_on ? TABLE_ON : TABLE_OFF);
}

static void table_freed(struct partials *partials, int result)
{
	uint32_t *k = &partials->useless[!partials->useless[0]];

	device_written(partials->device);
	alloc_free(&writer_of(partials)->alloc, *k, !result);
	*k = 0;
	table_free(partials);
}

/* The header on disk is the new one. */
static void table_named(struct device_commit_waiter *waiter, int result)
{
	struct partials *partials = container_of(waiter, struct partials, named);

	if (result) {
		/* The device has aborted: nobody asks again which of the two it is. */
		table_over(partials, result);
		table_end(partials, was_on(partials) ? TABLE_ON : TABLE_OFF);
		return;
	}
	table_free(partials);
}

static void table_name(struct partials *partials)
{
	struct writer *writer = writer_of(partials);
	struct geometry g = writer->delta->geometry;

	partials->step = TABLE_NAME;
	partials->useless[0] = g.extension ? cluster_at(&g, g.extension) : 0;
	partials->useless[1] = !partials->turning_on && was_on(partials) ? partials->table_cluster : 0;
	g.extension = partials->extension ? geometry_offset(&g, partials->extension) : 0;
	g.raw_state = partials->next.raw_state;
	g.partial = partials->turning_on;
	writer_set_geometry(writer, &g);
	partials->named.done = table_named;
	commit_wait(&writer->commit, &partials->named);
}

/* A cluster of the file for the extension. */
static void table_write(struct partials *partials)
{
	struct geometry *g = &partials->next;
	int r = writer_allocate(writer_of(partials), 1, &partials->extension);

	if (r < 0) {
		partials->extension = 0;
		table_failed(partials, r);
		return;
	}
	extension_seal(partials->buffer, g->cluster);
	table_io(partials, TABLE_WRITE, IO_WRITE, geometry_offset(g, partials->extension), g->cluster);
}

/* The next extension: the dirty bitmaps, and the table where there will be one. */
static void table_compose(struct partials *partials)
{
	struct geometry *g = &partials->next;
	uint8_t data[PARTIAL_FEATURE];
	const struct extension_feature feature = {
		.magic = EXTENSION_PARTIAL, .flags = EXTENSION_NECESSARY, .data = data, .length = sizeof(data)
	};

	bool any = cbt_compose(partials->device, g, partials->buffer);

	if (!partials->turning_on && !any) {
		table_name(partials);
		return;
	}
	partial_feature_put(&partials->table, data);
	if (partials->turning_on && !extension_add(partials->buffer, g->cluster, &feature))
		table_failed(partials, -ENOSPC);
	else
		table_write(partials);
}

static void table_blank(struct partials *partials)
{
	memset(partials->buffer, 0, partials->device->cluster);
	table_io(partials, TABLE_BLANK, IO_WRITE, partials->table.offset,
		 2 * (uint64_t)partials->table.pages * FORMAT_PAGE);
}

static void table_done(struct io_op *op, int result)
{
	struct partials *partials = container_of(op, struct partials, op);

	if (stall_op(partials->device, op, result))
		return;
	if (partials->step == TABLE_FREE) {
		table_freed(partials, result);
		return;
	}
	if (op->kind == IO_WRITE)
		device_written(partials->device);
	if (result)
		table_failed(partials, result);
	else if (partials->step == TABLE_WRITE && partials->turning_on && !was_on(partials))
		table_blank(partials);
	else
		table_name(partials);
}

/* How many pages hold all that may be live, and as many that wait for a commit. */
static uint32_t pages_wanted(const struct device *dev)
{
	uint32_t most = partial_max_pages(dev->cluster);

	return min_u64(most, div_round_up(2 * (uint64_t)partials_live_limit(dev), PARTIAL_RECORDS));
}

static int table_choose(struct partials *partials)
{
	struct device *dev = partials->device;
	int r = writer_allocate(dev->writer, 1, &partials->table_cluster);

	if (r < 0) {
		partials->table_cluster = 0;
		return r;
	}
	partials->table = (struct partial_table){
		.offset = geometry_offset(&partials->next, partials->table_cluster),
		.unit = partials->unit,
		.pages = pages_wanted(dev),
	};
	return partials_allot(partials, partials->table.pages);
}

static void table_begin(struct partials *partials, bool on, bool staying)
{
	struct device *dev = partials->device;
	const struct geometry *g = &dev->top->geometry;
	int r = 0;

	partials->turning_on = on;
	partials->staying = staying;
	partials->step = TABLE_WRITE;
	partials->next = *g;
	partials->extension = 0;
	partials->op.done = table_done;
	partials->buffer = io_buffer_new(dev->cluster);
	if (on && !staying) {
		partials->table_cluster = 0;
		partials->writer = dev->writer;
		r = table_choose(partials);
	}
	if (r < 0 || !partials->buffer)
		table_failed(partials, r < 0 ? r : -ENOMEM);
	else
		table_compose(partials);
}

void partials_turn(struct partials *partials, bool on)
{
	table_begin(partials, on, false);
}

void partials_replant(struct partials *partials)
{
	partials->replant = false;
	table_begin(partials, partials->step == TABLE_ON, true);
}

void partials_refuse_plants(struct partials *partials, int result)
{
	partials->replant = false;
	partials->staying = true;
	table_over(partials, result);
}

/* ---- At open ---- */

struct opening {
	struct partials *partials;
	const struct delta *delta;
	uint32_t end; /* file clusters from here on are beyond the end of the file */
	struct ploop_error *err;
};

static int refuse(const struct opening *opening, const char *what)
{
	return error_set(opening->err, -EUCLEAN, PLOOP_EXIT_FORMAT,
			 "%s: the table of partial clusters %s; 'ploop check' "
			 "tells more",
			 opening->delta->file->path, what);
}

static int take_record(const struct opening *opening, unsigned slot, const struct partial_record *record)
{
	struct partials *partials = opening->partials;
	struct device *dev = partials->device;
	const struct geometry *g = &opening->delta->geometry;
	unsigned level = partials->writer->level;
	struct partial *partial;
	uint32_t k;

	if (record->v >= g->clusters || (uint64_t)record->v * g->cluster >= g->size ||
	    opening->delta->format->decode(g, record->entry, &k) || k >= opening->end)
		return refuse(opening, "names a cluster that is not there");
	if (map_in(&dev->map, record->v, level))
		return 0; /* rule 4 */
	if (partial_find(partials, record->v))
		return refuse(opening, "names a cluster twice");
	if (!alloc_claim(&partials->writer->alloc, k) && !dev->read_only)
		return refuse(opening, "points to a cluster that has another use");
	partial = partial_restore(partials, slot, record, k);
	if (!partial_record_fits(record, partial->units))
		return refuse(opening, "has units beyond the end of a cluster");
	if (partial->nvalid == partial->units)
		partial_complete(partials, partial);
	return 0;
}

/* Reads a page: the newer of its copies. */
static int load_page(const struct opening *opening, uint32_t page, uint8_t *bytes)
{
	struct partials *partials = opening->partials;
	struct partial_record records[2][PARTIAL_RECORDS];
	uint64_t sequence[2];
	bool good[2];
	unsigned copy;
	int r = io_pread(opening->delta->file, bytes, 2 * FORMAT_PAGE, partial_page_offset(&partials->table, page, 0));

	if (r)
		return error_sys(opening->err, r, PLOOP_EXIT_READ, "%s: cannot read the table of partial clusters",
				 opening->delta->file->path);
	for (copy = 0; copy < 2; copy++)
		good[copy] = partial_page_get(bytes + (size_t)copy * FORMAT_PAGE, &sequence[copy], records[copy]);
	if (!good[0] && !good[1])
		return refuse(opening, "is damaged");
	copy = !good[0] || (good[1] && sequence[1] > sequence[0]);
	if (copy)
		bitmap_set(&partials->newer, page);
	partials->sequences[page] = sequence[copy];
	for (unsigned i = 0; i < PARTIAL_RECORDS && !r; i++)
		if (records[copy][i].entry)
			r = take_record(opening, page * PARTIAL_RECORDS + i, &records[copy][i]);
	return r;
}

static int load_table(const struct opening *opening)
{
	struct partials *partials = opening->partials;
	uint8_t *bytes = io_buffer_new(2 * FORMAT_PAGE);
	int r = bytes ? partials_allot(partials, partials->table.pages) : -ENOMEM;

	if (r)
		error_set(opening->err, r, PLOOP_EXIT_MALLOC, "%s: no memory for partial clusters",
			  opening->delta->file->path);
	else if (!alloc_claim(&partials->writer->alloc, partials->table_cluster) && !partials->device->read_only)
		r = refuse(opening, "lies in a cluster that has another use");
	for (uint32_t page = 0; page < partials->table.pages && !r; page++)
		r = load_page(opening, page, bytes);
	if (bytes)
		io_buffer_free(bytes, 2 * FORMAT_PAGE);
	return r;
}

int partials_find_table(const struct delta *delta, struct partial_table *ret, uint64_t *ret_size,
			struct ploop_error *err)
{
	const struct geometry *g = &delta->geometry;
	uint8_t *cluster;
	int r = io_size(delta->file, ret_size);

	if (r)
		return error_sys(err, r, PLOOP_EXIT_FSTAT, "%s: cannot tell its size", delta->file->path);
	if (!extension_placed(g, *ret_size))
		return 0;
	cluster = io_buffer_new(g->cluster);
	if (!cluster)
		return error_set(err, -ENOMEM, PLOOP_EXIT_MALLOC, "%s: no memory for its format extension",
				 delta->file->path);
	r = io_pread(delta->file, cluster, g->cluster, g->extension);
	if (r)
		error_sys(err, r, PLOOP_EXIT_READ, "%s: cannot read the format extension", delta->file->path);
	else if (!extension_verify(cluster, g->cluster))
		r = partial_feature_find(cluster, g, *ret_size, ret);
	if (r == -EINVAL)
		error_set(err, -EUCLEAN, PLOOP_EXIT_FORMAT,
			  "%s: its table of partial clusters makes no sense; 'ploop check' tells more",
			  delta->file->path);
	io_buffer_free(cluster, g->cluster);
	return r == -EINVAL ? -EUCLEAN : r;
}

int partials_load(struct device *dev, unsigned level, struct ploop_error *err)
{
	struct partials *partials = dev->partials;
	struct opening opening = { .partials = partials, .delta = &dev->levels[level], .err = err };
	const struct geometry *g = &opening.delta->geometry;
	uint64_t size;
	int r;

	if (!opening.delta->format->has_index || !g->extension)
		return 0;
	r = partials_find_table(opening.delta, &partials->table, &size, err);
	if (r <= 0)
		return r;
	if (level != device_top_level(dev))
		return error_set(
			err, -EUCLEAN, PLOOP_EXIT_FORMAT,
			"%s: was not closed and holds clusters that are not whole; open it once as the top of its disk",
			opening.delta->file->path);
	partials->writer = dev->writer;
	partials->step = TABLE_ON;
	partials->table_cluster = cluster_at(g, partials->table.offset);
	opening.end = load_file_clusters(opening.delta, size);
	return load_table(&opening);
}

int partials_scrub(struct partials *partials)
{
	uint8_t *page = io_buffer_new(FORMAT_PAGE);
	uint64_t offset;
	int r = page ? 0 : -ENOMEM;

	for (uint32_t p = 0; p < partials->table.pages; p++)
		bitmap_set(&partials->dirty, p);
	partials->sweep = 0;
	while (!r && partials_encode(partials->writer, page, &offset))
		r = io_pwrite(partials->writer->delta->file, page, FORMAT_PAGE, offset);
	if (page)
		io_buffer_free(page, FORMAT_PAGE);
	return r ? r : io_sync(partials->writer->delta->file);
}
