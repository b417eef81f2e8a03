/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* call.c - options by the verb's table, and the usage text made from the same table. */
#include "cli/call.h"

#include <assert.h>
#include <stdarg.h>
#include <string.h>

#include "base/log.h"
#include "cli/report.h"

/* getopt_long() wants its own tables: letters and long names made from ours. */
static void call_prepare(struct call *call)
{
	char *letter = call->letters;
	unsigned n = 0;

	*letter++ = ':';
	for (const struct verb_option *o = call->verb->options; o && o->code; o++) {
		assert(n < CALL_OPTIONS);
		if (o->code < OPTION_JSON) {
			*letter++ = (char)o->code;
			if (o->arg)
				*letter++ = ':';
		}
		if (o->name)
			call->longs[n++] =
				(struct option){ o->name, o->arg ? required_argument : no_argument, NULL, o->code };
	}
}

int call_option(struct call *call)
{
	const char *word;
	int c;

	opterr = 0;
	c = getopt_long(call->argc, call->argv, call->letters, call->longs, NULL);
	call->value = optarg;
	switch (c) {
	case CALL_END:
		call->operands = call->argv + optind;
		call->noperands = call->argc - optind;
		return CALL_END;
	case ':':
		call_usage(call, "option %s needs an argument", call->argv[optind - 1]);
		return CALL_BAD;
	case '?':
		word = call->argv[optind - 1];
		if (optopt && optopt < OPTION_JSON && strncmp(word, "--", 2))
			call_usage(call, "there is no option -%c", optopt);
		else if (optopt)
			call_usage(call, "option %s takes no argument", word);
		else
			call_usage(call, "there is no option %s", word);
		return CALL_BAD;
	default:
		return c;
	}
}

int call_usage(const struct call *call, const char *format, ...)
{
	char text[PLOOP_ERROR_TEXT];
	va_list ap;

	va_start(ap, format);
	vsnprintf(text, sizeof(text), format, ap);
	va_end(ap);
	log_error("ploop %s: %s (see ploop help %s)", call->verb->name, text, call->verb->name);
	return PLOOP_EXIT_PARAM;
}

int call_usage_error(const struct call *call, const struct ploop_error *err)
{
	log_error("%s (see ploop help %s)", err->text, call->verb->name);
	return err->status ? (int)err->status : PLOOP_EXIT_PARAM;
}

static void print_synopsis(const struct verb *verb, FILE *out)
{
	const char *line = verb->synopsis ? verb->synopsis : "";
	const char *lead = "Usage:";

	do {
		size_t len = strcspn(line, "\n");

		fprintf(out, "%s ploop %s%s%.*s\n", lead, verb->name, len ? " " : "", (int)len, line);
		line += len + (line[len] == '\n');
		lead = "      ";
	} while (*line);
}

static void print_option(const struct verb_option *o, FILE *out)
{
	char left[80];
	int used = 0;

	if (o->code < OPTION_JSON)
		used = snprintf(left, sizeof(left), "-%c%s", o->code, o->name ? ", " : "");
	else
		used = snprintf(left, sizeof(left), "    ");
	if (o->name)
		used += snprintf(left + used, sizeof(left) - (size_t)used, "--%s", o->name);
	if (o->arg)
		snprintf(left + used, sizeof(left) - (size_t)used, "%s%s", o->name ? "=" : " ", o->arg);
	if (strlen(left) > 26)
		fprintf(out, "  %s\n  %-26s  %s\n", left, "", o->help);
	else
		fprintf(out, "  %-26s  %s\n", left, o->help);
}

void call_print_usage(const struct verb *verb, FILE *out)
{
	print_synopsis(verb, out);
	fprintf(out, "\n%c%s.\n", verb->summary[0] - ('a' <= verb->summary[0] && verb->summary[0] <= 'z' ? 32 : 0),
		verb->summary + 1);
	if (verb->options)
		fprintf(out, "\n");
	for (const struct verb_option *o = verb->options; o && o->code; o++) {
		if (o->help)
			print_option(o, out);
	}
	if (verb->details)
		fprintf(out, "\n%s", verb->details);
}

static bool wants_help(const struct verb *verb, int argc, char **argv)
{
	if (argc != 2)
		return false;
	if (!strcmp(argv[1], "--help"))
		return true;
	for (const struct verb_option *o = verb->options; o && o->code; o++) {
		if (o->code == 'h')
			return false;
	}
	return !strcmp(argv[1], "-h");
}

int call_verb(const struct verb *verb, int argc, char **argv)
{
	struct call call = { .verb = verb, .argc = argc, .argv = argv };

	if (argc == 1 && !(verb->flags & VERB_BARE)) {
		call_print_usage(verb, stderr);
		return PLOOP_EXIT_PARAM;
	}
	if (wants_help(verb, argc, argv)) {
		call_print_usage(verb, stdout);
		return PLOOP_EXIT_OK;
	}
	call_prepare(&call);
	optind = 0; /* glibc: start afresh, with the permutation of options */
	return verb->run(&call);
}
