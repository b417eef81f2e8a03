/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* bench.c - `ploop bench`: how fast the engine is on a disk, with the options of `qemu-img bench` where it has them. */
#include <stdio.h>

#include "cli/call.h"
#include "cli/files.h"
#include "cli/json.h"
#include "cli/report.h"
#include "cli/size.h"
#include "cli/verbs.h"

enum {
	OPTION_FIRST_WRITE = OPTION_OWN,
	OPTION_RANDOM,
	OPTION_FLUSH_INTERVAL,
	OPTION_NO_DRAIN,
	OPTION_LOOP,
};

struct bench_call {
	struct ploop_bench bench;
	struct files files;
	bool json;
};

static int parse_sizes(struct ploop_bench *bench, int option, const char *value, struct ploop_error *err)
{
	const char name[3] = { '-', (char)option, 0 };
	uint64_t bytes;
	int r;

	r = size_parse(value, name, SIZE_BYTES, &bytes, err);
	if (r < 0)
		return r;
	if (option == 's')
		bench->length = bytes > UINT32_MAX ? UINT32_MAX : (uint32_t)bytes;
	else if (option == 'S')
		bench->step = bytes;
	else
		bench->offset = bytes;
	return 0;
}

static int parse_numbers(struct ploop_bench *bench, int option, const char *value, struct ploop_error *err)
{
	const char *name = option == 'c' ? "-c" : option == 'd' ? "-d" : "--flush-interval";
	uint64_t number;
	int r;

	r = number_parse(value, name, option == 'c' ? UINT64_MAX : 1u << 20, &number, err);
	if (r < 0)
		return r;
	if (option == 'c')
		bench->count = number;
	else if (option == 'd')
		bench->depth = (unsigned)number;
	else
		bench->flush_interval = (unsigned)number;
	return 0;
}

/* One option. */
static int parse_one(struct bench_call *own, int option, const char *value, struct ploop_error *err)
{
	struct ploop_bench *bench = &own->bench;

	switch (option) {
	case 'c':
	case 'd':
	case OPTION_FLUSH_INTERVAL:
		return parse_numbers(bench, option, value, err);
	case 's':
	case 'S':
	case 'o':
		return parse_sizes(bench, option, value, err);
	case 'w':
		bench->write = true;
		return 0;
	case OPTION_FIRST_WRITE:
		bench->first_write = true;
		return 0;
	case OPTION_RANDOM:
		bench->random = true;
		return 0;
	case OPTION_NO_DRAIN:
		bench->no_drain = true;
		return 0;
	case OPTION_LOOP:
		bench->loop = value;
		return 0;
	case OPTION_JSON:
		own->json = true;
		return 0;
	default:
		return files_option(&own->files, option, value, err);
	}
}

static double rate(uint64_t amount, uint64_t ns)
{
	return ns ? (double)amount * 1e9 / (double)ns : 0;
}

static int print_json(const struct ploop_bench_result *r)
{
	struct json_object *object = json_object_new_object();
	const struct ploop_bench *run = &r->run;

	json_add_text(object, "kind", run->first_write ? "first_write" : run->write ? "write" : "read");
	json_add_bool(object, "random", run->random);
	json_add_number(object, "requests", r->requests);
	json_add_number(object, "request_size", run->length);
	json_add_number(object, "step", run->step);
	json_add_number(object, "offset", run->offset);
	json_add_number(object, "depth", run->depth);
	json_add_number(object, "flushes", r->flushes);
	json_add_number(object, "bytes", r->bytes);
	json_add_number(object, "wall_ns", r->wall_ns);
	json_add_number(object, "cpu_ns", r->cpu_ns);
	json_add_number(object, "iops", (uint64_t)rate(r->requests, r->wall_ns));
	json_add_number(object, "bytes_per_second", (uint64_t)rate(r->bytes, r->wall_ns));
	json_add_number(object, "cpu_ns_per_request", r->requests ? r->cpu_ns / r->requests : 0);
	json_add_text(object, "io", r->io);
	json_add_text(object, "loop", run->loop);
	json_add_number(object, "disk_size", r->size);
	json_add_number(object, "cluster", r->cluster);
	return json_print(object);
}

static int print_text(const struct ploop_bench_result *r)
{
	const struct ploop_bench *run = &r->run;
	char length[SIZE_TEXT], step[SIZE_TEXT] = "random";

	if (!run->random)
		size_format(run->step, step);
	printf("%llu %s%ss of %s, %u in flight, step %s, from byte %llu, %llu flushes (%s I/O, %s loop)\n",
	       (unsigned long long)r->requests, run->first_write ? "first " : "", run->write ? "write" : "read",
	       size_format(run->length, length), run->depth, step, (unsigned long long)run->offset,
	       (unsigned long long)r->flushes, r->io, run->loop);
	printf("%.3f s, %.0f IOPS, %.1f MiB/s, %.2f us of CPU per request\n", (double)r->wall_ns / 1e9,
	       rate(r->requests, r->wall_ns), rate(r->bytes, r->wall_ns) / (1 << 20),
	       r->requests ? (double)r->cpu_ns / 1e3 / (double)r->requests : 0.0);
	return PLOOP_EXIT_OK;
}

static int run(struct call *call)
{
	struct bench_call own = { 0 };
	struct ploop_bench_result result;
	struct ploop_error err = { 0 };
	int c;

	while ((c = call_option(call)) != CALL_END) {
		if (c == CALL_BAD)
			return PLOOP_EXIT_PARAM;
		if (parse_one(&own, c, call->value, &err) < 0)
			return call_usage_error(call, &err);
	}
	if (files_operands(&own.files, call))
		return PLOOP_EXIT_PARAM;
	own.bench.files = &own.files.files;
	if (ploop_bench(&own.bench, &result, &err) < 0)
		return report_error(&err);
	return own.json ? print_json(&result) : print_text(&result);
}

static const struct verb_option options[] = {
	{ 'c', "count", "N", "requests to send (75000)" },
	{ 'd', "depth", "N", "requests in flight at a time (64)" },
	{ 's', "buffer-size", "BYTES", "size of a request (4k)" },
	{ 'S', "step-size", "BYTES", "from the start of a request to that of the next (the size of a request)" },
	{ 'o', "offset", "BYTES", "where on the disk to start (0)" },
	{ 'w', NULL, NULL, "write instead of read: DESTROYS what is on the disk" },
	{ OPTION_FIRST_WRITE, "first-write", NULL, "write to the start of each cluster of a disk that is still empty" },
	{ OPTION_RANDOM, "random", NULL, "anywhere, not in order" },
	{ OPTION_FLUSH_INTERVAL, "flush-interval", "N", "flush after every N writes" },
	{ OPTION_NO_DRAIN, "no-drain", NULL, "do not wait for requests in flight before a flush" },
	FILES_OPTIONS,
	{ OPTION_LOOP, "loop", "uring|poll", "event loop (chosen by itself)" },
	VERB_OPTION_JSON,
	{ 0 },
};

const struct verb verb_bench = {
	.name = "bench",
	.group = "Look",
	.summary = "measure requests to a disk in process, without a front end",
	.synopsis = "[OPTIONS] DiskDescriptor.xml\n[OPTIONS] BASE [.. TOP]",
	.details = "Sizes are in bytes here, or with one of K, M, G, T. The disk must not be mounted.\n",
	.options = options,
	.run = run,
};
