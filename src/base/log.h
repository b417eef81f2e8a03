/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * log.h - messages of the control path. Nothing on the way of a request logs.
 *
 * Levels are those of the original tool: LOG_LEVEL_ERROR goes to a person's standard error, LOG_LEVEL_RESULT and above
 * to standard output, shown up to the verbosity asked for. log_debug() is for developers: it prints only when the
 * environment variable PLOOP_DEBUG names the room, and costs one test when it does not.
 */
#ifndef BASE_LOG_H
#define BASE_LOG_H

#include <stdbool.h>

enum log_level {
	LOG_LEVEL_ERROR = -1,
	LOG_LEVEL_RESULT = 0,
	LOG_LEVEL_WARNING = 1,
	LOG_LEVEL_INFO = 3,
	LOG_LEVEL_DETAIL = 4,
};

void log_write(int level, const char *format, ...) __attribute__((format(printf, 2, 3)));

#define log_error(...) log_write(LOG_LEVEL_ERROR, __VA_ARGS__)
#define log_warning(...) log_write(LOG_LEVEL_WARNING, __VA_ARGS__)
#define log_info(...) log_write(LOG_LEVEL_INFO, __VA_ARGS__)

/*
 * Between these, results and information are details: an operation is made of others here, of which the caller knows nothing.
 * They may be nested.
 */
void log_inner_begin(void);
void log_inner_end(void);

/* True when PLOOP_DEBUG lists `room` or "all". */
bool log_debugging(const char *room);

#define log_debug(room, ...)                                         \
	do {                                                         \
		if (__builtin_expect(log_debugging(room), 0))        \
			log_write_debug(room, __VA_ARGS__);          \
	} while (0)

void log_write_debug(const char *room, const char *format, ...) __attribute__((format(printf, 2, 3)));

#endif
