/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* message.h, fields.h, open.h: what the other side may send us, and that what we send comes back the same. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <ploop/ploop.h>

#include "base/cleanup.h"
#include "base/range.h"
#include "base/fd.h"
#include "control/message.h"
#include "control/open.h"

static struct json_object *from(const char *text)
{
	struct json_object *object = json_tokener_parse(text);

	assert_non_null(object);
	return object;
}

static void test_lines(void **state)
{
	struct message_buffer buffer = { 0 };
	struct json_object *object = NULL;
	const char *lines = "{\"id\":1}\n{\"id\":2}\nnonsense\n[1]\n{\"a\":1} x\n{\"id\":3";
	uint64_t id;
	int ends[2];

	(void)state;
	assert_int_equal(pipe(ends), 0);
	assert_int_equal(fd_write(ends[1], lines, strlen(lines)), 0);
	assert_true(message_fill(&buffer, ends[0]) > 0);
	for (uint64_t i = 1; i <= 2; i++) {
		assert_int_equal(message_take(&buffer, &object), 1);
		assert_int_equal(message_number(object, "id", 9, &id, NULL), 0);
		assert_int_equal(id, i);
		json_object_put(object);
	}
	assert_int_equal(message_take(&buffer, &object), -EPROTO);
	assert_int_equal(message_take(&buffer, &object), -EPROTO);
	assert_int_equal(message_take(&buffer, &object), -EPROTO);
	assert_int_equal(message_take(&buffer, &object), 0);
	assert_int_equal(fd_write(ends[1], "}\n", 2), 0);
	close(ends[1]);
	assert_true(message_fill(&buffer, ends[0]) == 2);
	assert_int_equal(message_take(&buffer, &object), 1);
	json_object_put(object);
	assert_int_equal(message_fill(&buffer, ends[0]), 0);
	close(ends[0]);
	message_buffer_free(&buffer);
}

static void test_endless_line(void **state)
{
	struct message_buffer buffer = { 0 };
	char junk[4096];
	ssize_t n = 1;
	int ends[2];

	(void)state;
	memset(junk, 'x', sizeof(junk));
	assert_int_equal(pipe(ends), 0);
	for (unsigned i = 0; n > 0; i++) {
		assert_true(i < 2 * MESSAGE_MAX / sizeof(junk));
		assert_int_equal(fd_write(ends[1], junk, sizeof(junk)), 0);
		n = message_fill(&buffer, ends[0]);
	}
	assert_int_equal(n, -EMSGSIZE);
	close(ends[0]);
	close(ends[1]);
	message_buffer_free(&buffer);
}

static void test_deep(void **state)
{
	struct message_buffer buffer = { 0 };
	struct json_object *object;
	char line[300];

	(void)state;
	strcpy(line, "{\"a\":");
	for (int i = 0; i < 100; i++)
		strcat(line, "[");
	strcat(line, "\n");
	buffer.bytes = strdup(line);
	buffer.used = buffer.size = strlen(line);
	assert_int_equal(message_take(&buffer, &object), -EPROTO);
	message_buffer_free(&buffer);
}

static void test_getters(void **state)
{
	_message_ struct json_object *m =
		from("{\"t\":\"x\",\"nul\":\"a\\u0000b\",\"n\":5,\"minus\":-1,\"f\":1.5,\"b\":true,"
		     "\"l\":[\"p\",\"q\"],\"bad\":[\"p\",1],\"o\":{},\"null\":null}");
	struct ploop_error err = { 0 };
	const char *text;
	char **texts;
	uint64_t n;
	size_t count;
	bool b;

	(void)state;
	assert_int_equal(message_text(m, "t", &text, NULL), 0);
	assert_string_equal(text, "x");
	assert_int_equal(message_text(m, "null", &text, NULL), 0);
	assert_null(text);
	assert_int_equal(message_text(m, "nul", &text, &err), -EPROTO);
	assert_int_equal(err.status, PLOOP_EXIT_PROTOCOL);
	assert_non_null(strstr(err.text, "nul"));
	assert_int_equal(message_text(m, "n", &text, NULL), -EPROTO);
	assert_int_equal(message_need_text(m, "absent", &text, NULL), -EPROTO);
	assert_int_equal(message_number(m, "n", 5, &n, NULL), 0);
	assert_int_equal(n, 5);
	assert_int_equal(message_number(m, "n", 4, &n, NULL), -EPROTO);
	assert_int_equal(message_number(m, "minus", 9, &n, NULL), -EPROTO);
	assert_int_equal(message_number(m, "f", 9, &n, NULL), -EPROTO);
	assert_int_equal(message_number(m, "t", 9, &n, NULL), -EPROTO);
	assert_int_equal(message_bool(m, "b", &b, NULL), 0);
	assert_true(b);
	assert_int_equal(message_bool(m, "n", &b, NULL), -EPROTO);
	assert_int_equal(message_texts(m, "l", 2, &texts, &count, NULL), 0);
	assert_int_equal(count, 2);
	assert_string_equal(texts[1], "q");
	message_texts_free(texts, count);
	assert_int_equal(message_texts(m, "l", 1, &texts, &count, NULL), -EPROTO);
	assert_int_equal(message_texts(m, "bad", 9, &texts, &count, NULL), -EPROTO);
	assert_int_equal(message_texts(m, "o", 9, &texts, &count, NULL), -EPROTO);
}

static void test_ranges(void **state)
{
	static const char *const broken[] = {
		"{}",
		"{\"r\":1}",
		"{\"r\":[1]}",
		"{\"r\":[1,\"2\"]}",
		"{\"r\":[-1,2]}",
		"{\"r\":[0,0]}",
		"{\"r\":[0,101]}",
		"{\"r\":[100,1]}",
		"{\"r\":[99,18446744073709551615]}",
		"{\"r\":[18446744073709551615,1]}",
	};
	struct ranges sent = { 0 }, got = { 0 };
	_message_ struct json_object *message = json_object_new_object();
	_message_ struct json_object *none = json_object_new_object();
	struct ploop_error err;

	(void)state;
	assert_int_equal(ranges_add(&sent, 7, 3), 0);
	assert_int_equal(ranges_add(&sent, 0, 5), 0);
	message_add_ranges(message, "r", &sent);
	message_add_ranges(none, "r", &got);
	assert_int_equal(message_ranges(none, "r", 100, &got, &err), 0);
	assert_int_equal(got.n, 0);
	assert_int_equal(message_ranges(message, "r", 10, &got, &err), 0);
	assert_int_equal(got.n, 2);
	assert_true(got.list[0].offset == 7 && got.list[0].length == 3 && got.list[1].length == 5);
	assert_int_equal(message_ranges(message, "r", 9, &got, &err), -EPROTO);
	for (size_t i = 0; i < ARRAY_SIZE(broken); i++) {
		_message_ struct json_object *bad = from(broken[i]);

		assert_int_equal(message_ranges(bad, "r", 100, &got, &err), -EPROTO);
	}
	ranges_clear(&sent);
	ranges_clear(&got);
}

static void test_answers(void **state)
{
	static const char *const broken[] = {
		"{\"id\":1,\"ok\":false}",
		"{\"ok\":false,\"error\":7}",
		"{\"ok\":false,\"error\":{\"text\":\"x\",\"status\":1,\"code\":5}}",
		"{\"ok\":false,\"error\":{\"text\":\"x\",\"status\":999,\"code\":-5}}",
		"{\"ok\":1}",
		"{\"ok\":true,\"result\":[]}",
	};
	struct ploop_error sent = { .code = -EBUSY, .status = PLOOP_EXIT_BUSY, .text = "held by \"dd\"" }, got;
	_message_ struct json_object *refusal = message_refusal(7, &sent);

	(void)state;
	assert_int_equal(message_result(refusal, NULL, &got), -EBUSY);
	assert_int_equal(got.status, PLOOP_EXIT_BUSY);
	assert_string_equal(got.text, sent.text);
	for (size_t i = 0; i < ARRAY_SIZE(broken); i++) {
		_message_ struct json_object *answer = from(broken[i]);

		assert_int_equal(message_result(answer, NULL, &got), -EPROTO);
	}
}

static void test_open_round_trip(void **state)
{
	char *operands[] = { (char *)"/a \"b\"\n\xff", (char *)"/c" };
	struct open_request out = {
		.operands = operands,
		.noperands = 2,
		.cluster = 65536,
		.component = (char *)"backup",
		.read_only = true,
		.device = (char *)"ploop7",
	};
	struct message_buffer buffer = { 0 };
	struct open_request in;
	struct json_object *message, *again;

	(void)state;
	assert_int_equal(open_request_print(&out, &message), 0);
	assert_int_equal(message_print(message, &buffer.bytes, &buffer.used), 0);
	buffer.size = buffer.used;
	assert_int_equal(message_take(&buffer, &again), 1);
	assert_int_equal(open_request_parse(again, &in, NULL), 0);
	assert_int_equal(in.noperands, 2);
	assert_string_equal(in.operands[0], out.operands[0]);
	assert_string_equal(in.component, "backup");
	assert_string_equal(in.device, "ploop7");
	assert_int_equal(in.cluster, 65536);
	assert_true(in.read_only);
	assert_false(in.outside);
	assert_null(in.snapshot);
	open_request_clear(&in);
	message_buffer_free(&buffer);
	json_object_put(message);
	json_object_put(again);
}

static void test_open_refuses(void **state)
{
	static const struct {
		const char *text;
		int status;
	} cases[] = {
		{ "{}", PLOOP_EXIT_PROTOCOL },
		{ "{\"protocol\":2,\"operands\":[\"/a\"]}", PLOOP_EXIT_PROTOCOL },
		{ "{\"protocol\":1,\"operands\":[]}", PLOOP_EXIT_PROTOCOL },
		{ "{\"protocol\":1,\"operands\":[\"a\"]}", PLOOP_EXIT_PROTOCOL },
		{ "{\"protocol\":1,\"operands\":[\"\"]}", PLOOP_EXIT_PROTOCOL },
		{ "{\"protocol\":1,\"operands\":\"/a\"}", PLOOP_EXIT_PROTOCOL },
		{ "{\"protocol\":1,\"operands\":[\"/a\"],\"cluster\":-1}", PLOOP_EXIT_PROTOCOL },
		{ "{\"protocol\":1,\"operands\":[\"/a\"],\"log\":\"x\"}", PLOOP_EXIT_PROTOCOL },
		{ "{\"protocol\":1,\"operands\":[\"/a\"],\"device\":\"../x\"}", PLOOP_EXIT_PARAM },
		{ "{\"protocol\":1,\"operands\":[\"/a\"],\"read_only\":\"yes\"}", PLOOP_EXIT_PROTOCOL },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		_message_ struct json_object *message = from(cases[i].text);
		struct open_request request;
		struct ploop_error err = { 0 };

		assert_true(open_request_parse(message, &request, &err) < 0);
		assert_int_equal(err.status, cases[i].status);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_lines),        cmocka_unit_test(test_endless_line),
		cmocka_unit_test(test_deep),         cmocka_unit_test(test_getters),
		cmocka_unit_test(test_ranges),
		cmocka_unit_test(test_answers),      cmocka_unit_test(test_open_round_trip),
		cmocka_unit_test(test_open_refuses),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
