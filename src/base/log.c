/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* log.c - the one log sink of the process. What belongs to it is the only mutable file-scope state of base. */
#include "base/log.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <ploop/ploop.h>

static ploop_log_fn sink;
static void *sink_data;
static unsigned inner; /* log_inner_begin() without its end */

void ploop_set_log(ploop_log_fn fn, void *data)
{
	sink = fn;
	sink_data = data;
}

void log_inner_begin(void)
{
	inner++;
}

void log_inner_end(void)
{
	inner--;
}

void log_write(int level, const char *format, ...)
{
	char text[2048];
	va_list ap;

	if (!sink)
		return;
	if (inner && level >= LOG_LEVEL_RESULT && level != LOG_LEVEL_WARNING && level < LOG_LEVEL_DETAIL)
		level = LOG_LEVEL_DETAIL;
	va_start(ap, format);
	vsnprintf(text, sizeof(text), format, ap);
	va_end(ap);
	sink(sink_data, level, text);
}

static const char *debug_list(void)
{
	static const char *list;

	if (!list) {
		list = getenv("PLOOP_DEBUG");
		if (!list)
			list = "";
	}
	return list;
}

bool log_debugging(const char *room)
{
	const char *list = debug_list();
	size_t len = strlen(room);

	while (*list) {
		size_t word = strcspn(list, ",");

		if ((word == len && !memcmp(list, room, len)) || (word == 3 && !memcmp(list, "all", 3)))
			return true;
		list += word + (list[word] == ',');
	}
	return false;
}

void log_write_debug(const char *room, const char *format, ...)
{
	char text[2048];
	va_list ap;

	va_start(ap, format);
	vsnprintf(text, sizeof(text), format, ap);
	va_end(ap);
	fprintf(stderr, "%s: %s\n", room, text);
}
