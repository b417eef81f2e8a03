/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The transmission phase of NBD over a socket pair, without the kernel's driver: a client that is as good, as hasty or as bad as a
 * test wants it to be, over a device of memory that answers a little later.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>

#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <ploop/ploop.h>

#include "base/prng.h"
#include "device/device.h"
#include "export/nbd-server.h"
#include "export/nbd-wire.h"
#include "io/io.h"
#include "io/loop.h"

#define MIB (1024u * 1024)
#define DISK (64 * MIB)
#define CLIENTS 3
#define TURN_NS 1000000
#define TURNS 30000 /* that long without an answer: it hangs */

/* A device of memory in the place of the engine. */

struct device {
	struct loop *loop;
	char *memory;
	struct list todo;
	struct loop_timer timer;
	unsigned requests, flushes, discards, zeroes, fuas, busy, most, fail;
};

static struct device fake;

static int fake_do(struct device_request *request)
{
	char *at = fake.memory + request->offset;

	fake.requests++;
	fake.fuas += request->flags & DEVICE_FUA;
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

	(void)timer;
	list_init(&now);
	list_move_all(&now, &fake.todo);
	while ((node = list_pop(&now))) {
		struct device_request *request = container_of(node, struct device_request, node);

		fake.busy--;
		request->done(request, fake_do(request));
	}
}

void device_submit(struct device *device, struct device_request *request)
{
	assert_true(request->offset + request->length <= DISK && request->offset + request->length >= request->offset);
	/* As a hole that is read: answered at once. */
	if (request->kind == DEVICE_READ && request->offset % (8 * MIB) == 4096) {
		request->done(request, fake_do(request));
		return;
	}
	if (++device->busy > device->most)
		device->most = device->busy;
	list_push_back(&device->todo, &request->node);
	if (!device->timer.armed)
		loop_timer_set(device->loop, &device->timer, 200000);
}

uint64_t device_size(const struct device *device)
{
	(void)device;
	return DISK;
}

/* The server, and clients in the same thread. */

static struct loop *loop;
static struct nbd_server *server;
static struct nbd_server_config config;
static int clients[CLIENTS];
static unsigned ended, goodbyes;
static bool closed;

static void on_ended(void *data, bool goodbye)
{
	(void)data;
	ended++;
	goodbyes += goodbye;
}

static void on_closed(void *data)
{
	(void)data;
	closed = true;
}

static void turns_until(const bool *done)
{
	for (unsigned i = 0; !*done && i < TURNS; i++)
		assert_int_equal(loop_turn(loop, TURN_NS), 0);
	assert_true(*done);
}

static void wait_ended(unsigned n)
{
	for (unsigned i = 0; ended < n && i < TURNS; i++)
		assert_int_equal(loop_turn(loop, TURN_NS), 0);
	assert_int_equal(ended, n);
}

static int setup(void **state)
{
	ended = goodbyes = 0;
	closed = false;
	fake = (struct device){ .memory = io_buffer_new(DISK), .timer.expired = fake_run };
	list_init(&fake.todo);
	if (loop_new(*state, 8, &loop, NULL))
		return -1;
	fake.loop = loop;
	config = (struct nbd_server_config){ .loop = loop, .device = &fake, .depth = 8, .ended = on_ended };
	return 0;
}

static void start(unsigned n)
{
	assert_int_equal(nbd_server_new(&config, &server, NULL), 0);
	for (unsigned i = 0; i < CLIENTS; i++)
		clients[i] = -EBADF;
	for (unsigned i = 0; i < n; i++) {
		int ends[2];

		assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
		clients[i] = ends[0];
		assert_int_equal(nbd_server_add(server, ends[1]), 0);
	}
	assert_int_equal(nbd_server_connections(server), n);
}

static void stop(void)
{
	nbd_server_close(server, on_closed, NULL);
	turns_until(&closed);
	assert_int_equal(fake.busy, 0);
	for (unsigned i = 0; i < CLIENTS; i++)
		if (clients[i] >= 0)
			close(clients[i]);
}

static int teardown(void **state)
{
	(void)state;
	loop_free(loop);
	io_buffer_free(fake.memory, DISK);
	return 0;
}

/* Moves bytes both ways until all are sent and `wanted` have come. False when the server ends the connection. */
static bool exchange(int fd, const void *out, size_t len, void *in, size_t wanted)
{
	const char *from = out;
	char *to = in;

	for (unsigned i = 0; (len || wanted) && i < TURNS; i++) {
		ssize_t n = len ? send(fd, from, len, MSG_DONTWAIT | MSG_NOSIGNAL) : 0;

		if (n < 0 && errno != EAGAIN)
			return false;
		from += n > 0 ? n : 0;
		len -= n > 0 ? (size_t)n : 0;
		n = wanted ? recv(fd, to, wanted, MSG_DONTWAIT) : -1;
		if (wanted && (n == 0 || (n < 0 && errno != EAGAIN)))
			return false;
		to += n > 0 ? n : 0;
		wanted -= n > 0 ? (size_t)n : 0;
		assert_int_equal(loop_turn(loop, wanted && n < 0 ? TURN_NS : 0), 0);
	}
	assert_true(!len && !wanted);
	return true;
}

struct ask {
	uint16_t command, flags;
	uint64_t offset;
	uint32_t length;
};

static size_t put_request(unsigned char *to, const struct ask *ask, uint64_t handle)
{
	nbd_wire_put(to, 4, NBD_WIRE_REQUEST_MAGIC);
	nbd_wire_put(to + 4, 2, ask->flags);
	nbd_wire_put(to + 6, 2, ask->command);
	nbd_wire_put(to + 8, 8, handle);
	nbd_wire_put(to + 16, 8, ask->offset);
	nbd_wire_put(to + 24, 4, ask->length);
	return NBD_WIRE_REQUEST;
}

static uint32_t check_reply(const unsigned char *reply, uint64_t handle)
{
	assert_int_equal(nbd_wire_get(reply, 4), NBD_WIRE_REPLY_MAGIC);
	assert_int_equal(nbd_wire_get(reply + 8, 8), handle);
	return (uint32_t)nbd_wire_get(reply + 4, 4);
}

/* One request; the error of its reply. */
static uint32_t ask(int fd, const struct ask *what, const void *data, void *ret)
{
	static uint64_t handle = 0x8877665544332211u;
	unsigned char head[NBD_WIRE_REQUEST], reply[NBD_WIRE_REPLY];
	uint32_t error;

	put_request(head, what, ++handle);
	assert_true(exchange(fd, head, sizeof(head), NULL, 0));
	if (data)
		assert_true(exchange(fd, data, what->length, NULL, 0));
	assert_true(exchange(fd, NULL, 0, reply, sizeof(reply)));
	error = check_reply(reply, handle);
	if (!error && ret)
		assert_true(exchange(fd, NULL, 0, ret, what->length));
	return error;
}

static uint32_t ask_write(int fd, uint64_t offset, uint32_t length, const void *data)
{
	return ask(fd, &(struct ask){ .command = NBD_WIRE_WRITE, .offset = offset, .length = length }, data, NULL);
}

static uint32_t ask_read(int fd, uint64_t offset, uint32_t length, void *data)
{
	return ask(fd, &(struct ask){ .command = NBD_WIRE_READ, .offset = offset, .length = length }, NULL, data);
}

/* The tests */

static void test_good(void **state)
{
	char *out = io_buffer_new(2 * MIB), *in = io_buffer_new(2 * MIB);
	static const uint32_t lengths[] = { 512, 4096, 4608, 128 * 1024, MIB, 2 * MIB };

	(void)state;
	start(1);
	assert_int_equal(nbd_server_flags(server), 0x16d);
	for (unsigned i = 0; i < 2 * MIB; i++)
		out[i] = (char)(i * 31 + i / 4096);
	for (unsigned i = 0; i < sizeof(lengths) / sizeof(lengths[0]); i++) {
		memset(in, 0, 2 * MIB);
		assert_int_equal(ask_write(clients[0], 3 * MIB + 512, lengths[i], out + i), 0);
		assert_int_equal(ask_read(clients[0], 3 * MIB + 512, lengths[i], in), 0);
		assert_memory_equal(in, out + i, lengths[i]);
	}
	assert_int_equal(ask_write(clients[0], DISK - 512, 512, out), 0);
	assert_int_equal(ask_read(clients[0], 8 * MIB + 4096, 4096, in), 0);
	assert_int_equal(fake.fuas, 0);
	stop();
	io_buffer_free(out, 2 * MIB);
	io_buffer_free(in, 2 * MIB);
}

static void test_without_data(void **state)
{
	char data[512] = { 0 };

	(void)state;
	start(1);
	memset(fake.memory, 1, DISK);
	assert_int_equal(ask(clients[0], &(struct ask){ .command = NBD_WIRE_FLUSH }, NULL, NULL), 0);
	assert_int_equal(fake.flushes, 1);
	assert_int_equal(ask(clients[0], &(struct ask){ NBD_WIRE_TRIM, 0, MIB, 16 * MIB }, NULL, NULL), 0);
	assert_int_equal(fake.discards, 1);
	assert_true(fake.memory[MIB - 1] && !fake.memory[MIB] && !fake.memory[17 * MIB - 1] && fake.memory[17 * MIB]);
	assert_int_equal(
		ask(clients[0], &(struct ask){ NBD_WIRE_WRITE_ZEROES, NBD_WIRE_NO_HOLE, 32 * MIB, MIB }, NULL, NULL),
		0);
	assert_int_equal(fake.zeroes, 1);
	assert_true(!fake.memory[32 * MIB] && fake.memory[33 * MIB]);
	assert_int_equal(fake.fuas, 0);
	assert_int_equal(ask(clients[0], &(struct ask){ NBD_WIRE_WRITE, NBD_WIRE_FUA, 0, 512 }, data, NULL), 0);
	assert_int_equal(ask(clients[0], &(struct ask){ NBD_WIRE_TRIM, NBD_WIRE_FUA, 0, 512 }, NULL, NULL), 0);
	assert_int_equal(ask(clients[0], &(struct ask){ NBD_WIRE_READ, NBD_WIRE_FUA, 0, 512 }, NULL, data), 0);
	assert_int_equal(fake.fuas, 2);
	stop();
}

static void test_errors(void **state)
{
	static const struct {
		unsigned fail;
		uint32_t error;
	} cases[] = { { EIO, 5 }, { ENOSPC, 28 }, { EDQUOT, 28 }, { ENOMEM, 12 }, { EROFS, 1 }, { EUCLEAN, 5 } };
	char data[512] = "x";

	(void)state;
	start(1);
	for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		fake.fail = cases[i].fail;
		assert_int_equal(ask_write(clients[0], 0, 512, data), cases[i].error);
		assert_int_equal(ask_read(clients[0], 0, 512, data), cases[i].error);
	}
	fake.fail = 0;
	assert_int_equal(ask_read(clients[0], 0, 512, data), 0);
	stop();
}

/* Each is refused, without anything reaching the device, and the connection goes on. */
static void test_refused(void **state)
{
	static const struct {
		struct ask ask;
		uint32_t error;
	} cases[] = {
		{ { NBD_WIRE_READ, 0, 1, 512 }, 22 },
		{ { NBD_WIRE_READ, 0, 0, 100 }, 22 },
		{ { NBD_WIRE_READ, 0, 0, 0 }, 22 },
		{ { NBD_WIRE_READ, 0, DISK, 512 }, 22 },
		{ { NBD_WIRE_READ, 0, DISK - 512, 1024 }, 22 },
		{ { NBD_WIRE_READ, 0, UINT64_MAX - 511, 1024 }, 22 },
		{ { NBD_WIRE_READ, 0, 0, NBD_WIRE_TRANSFER_MAX + 512 }, 75 },
		{ { NBD_WIRE_READ, 0, 0, UINT32_MAX }, 75 },
		{ { NBD_WIRE_READ, 4, 0, 512 }, 22 },
		{ { NBD_WIRE_WRITE, 0, DISK, 512 }, 28 },
		{ { NBD_WIRE_WRITE, 0, DISK, 32 * MIB }, 28 },
		{ { NBD_WIRE_WRITE, 0, 1, 512 }, 22 },
		{ { NBD_WIRE_WRITE, 0, 0, 5 }, 22 },
		{ { NBD_WIRE_WRITE, 0, 0, 0 }, 22 },
		{ { NBD_WIRE_WRITE, 0x8000, 0, 8192 }, 22 },
		{ { NBD_WIRE_TRIM, 0, 512, UINT32_MAX - 511 }, 22 },
		{ { NBD_WIRE_TRIM, NBD_WIRE_NO_HOLE, 512, 512 }, 22 },
		{ { NBD_WIRE_WRITE_ZEROES, 0, DISK - 512, 4096 }, 28 },
		{ { NBD_WIRE_WRITE_ZEROES, 1 << 4, 0, 4096 }, 22 },
		{ { NBD_WIRE_FLUSH, 0, 512, 0 }, 22 },
		{ { NBD_WIRE_FLUSH, 0, 0, 512 }, 22 },
		{ { 5, 0, 0, 512 }, 22 },
		{ { 7, 0, 0, 512 }, 22 },
		{ { 0xffff, 0xffff, UINT64_MAX, UINT32_MAX }, 22 },
	};
	char *data = io_buffer_new(NBD_WIRE_TRANSFER_MAX);

	(void)state;
	start(1);
	for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		const struct ask *what = &cases[i].ask;

		assert_int_equal(ask(clients[0], what, what->command == NBD_WIRE_WRITE ? data : NULL, NULL),
				 cases[i].error);
		assert_int_equal(fake.requests, i);
		assert_int_equal(ask_read(clients[0], 0, 4096, data), 0);
	}
	assert_int_equal(ended, 0);
	stop();
	io_buffer_free(data, NBD_WIRE_TRANSFER_MAX);
}

static void test_read_only(void **state)
{
	char data[512] = "x";

	(void)state;
	config.read_only = true;
	start(1);
	assert_int_equal(nbd_server_flags(server), 0x107);
	assert_int_equal(ask_write(clients[0], 0, 512, data), 1);
	assert_int_equal(ask(clients[0], &(struct ask){ NBD_WIRE_TRIM, 0, 0, 512 }, NULL, NULL), 1);
	assert_int_equal(ask(clients[0], &(struct ask){ NBD_WIRE_WRITE_ZEROES, 0, 0, 512 }, NULL, NULL), 1);
	assert_int_equal(ask(clients[0], &(struct ask){ .command = NBD_WIRE_FLUSH }, NULL, NULL), 0);
	assert_int_equal(fake.requests, 0);
	assert_int_equal(ask_read(clients[0], 0, 512, data), 0);
	stop();
}

static void test_bad_magic(void **state)
{
	unsigned char head[2 * NBD_WIRE_REQUEST], reply[NBD_WIRE_REPLY];

	(void)state;
	start(2);
	put_request(head, &(struct ask){ .command = NBD_WIRE_FLUSH }, 1);
	put_request(head + NBD_WIRE_REQUEST, &(struct ask){ .command = NBD_WIRE_FLUSH }, 2);
	head[NBD_WIRE_REQUEST]++;
	(void)exchange(clients[0], head, sizeof(head), NULL, 0);
	wait_ended(1);
	assert_int_equal(goodbyes, 0);
	assert_int_equal(nbd_server_connections(server), 1);
	/* Nobody else is hurt. */
	assert_true(exchange(clients[1], head, NBD_WIRE_REQUEST, reply, sizeof(reply)));
	assert_int_equal(check_reply(reply, 1), 0);
	stop();
}

static void test_too_much_data(void **state)
{
	unsigned char head[NBD_WIRE_REQUEST];

	(void)state;
	start(1);
	put_request(head, &(struct ask){ NBD_WIRE_WRITE, 0, 0, NBD_WIRE_TRANSFER_MAX + 512 }, 1);
	(void)exchange(clients[0], head, sizeof(head), NULL, 0);
	wait_ended(1);
	assert_int_equal(fake.requests, 0);
	stop();
}

/* The stream ends after any byte of two writes: those that came whole are done, nothing else. */
static void test_cut(void **state)
{
	unsigned char stream[2 * (NBD_WIRE_REQUEST + 1024)];
	static const size_t cuts[] = { 0, 1, 27, 28, 29, 1051, 1052, 1053, 1079, 1080, 1081, 2103 };

	(void)state;
	memset(stream, 7, sizeof(stream));
	put_request(stream, &(struct ask){ NBD_WIRE_WRITE, 0, 0, 1024 }, 1);
	put_request(stream + NBD_WIRE_REQUEST + 1024, &(struct ask){ NBD_WIRE_WRITE, 0, MIB, 1024 }, 2);
	for (unsigned i = 0; i < sizeof(cuts) / sizeof(cuts[0]); i++) {
		ended = fake.requests = 0;
		closed = false;
		memset(fake.memory, 0, 2 * MIB);
		start(1);
		assert_true(exchange(clients[0], stream, cuts[i], NULL, 0));
		if (i % 2)
			close(clients[0]);
		else
			shutdown(clients[0], SHUT_WR);
		wait_ended(1);
		assert_int_equal(fake.requests, cuts[i] / (NBD_WIRE_REQUEST + 1024));
		assert_int_equal(fake.memory[0], fake.requests ? 7 : 0);
		assert_int_equal(fake.memory[MIB], 0);
		assert_int_equal(goodbyes, 0);
		if (i % 2)
			clients[0] = -EBADF;
		stop();
	}
}

/* Says that it goes, right behind its requests: they are answered. */
static void test_goodbye(void **state)
{
	unsigned char stream[3 * NBD_WIRE_REQUEST], replies[2 * NBD_WIRE_REPLY];

	(void)state;
	start(1);
	put_request(stream, &(struct ask){ .command = NBD_WIRE_FLUSH }, 1);
	put_request(stream + NBD_WIRE_REQUEST, &(struct ask){ .command = NBD_WIRE_FLUSH }, 2);
	put_request(stream + 2 * NBD_WIRE_REQUEST, &(struct ask){ .command = NBD_WIRE_DISCONNECT }, 3);
	assert_true(exchange(clients[0], stream, sizeof(stream), replies, sizeof(replies)));
	check_reply(replies, 1);
	check_reply(replies + NBD_WIRE_REPLY, 2);
	assert_false(exchange(clients[0], NULL, 0, replies, 1));
	wait_ended(1);
	assert_int_equal(goodbyes, 1);
	stop();
}

/* What one client asks for, and how far it has come. */
struct flood {
	unsigned char *stream;
	size_t size, sent, wanted, got;
};

#define FLOOD_REQUESTS 300u
#define FLOOD_MAX (64u * MIB)

static void flood_fill(struct flood *flood, struct prng *prng, uint64_t offset)
{
	*flood = (struct flood){ .stream = io_buffer_new(FLOOD_MAX) };
	for (unsigned i = 0; i < FLOOD_REQUESTS; i++) {
		bool large = prng_one_in(prng, 30), write = prng_one_in(prng, 2);
		uint32_t length = 512 * (1 + (uint32_t)prng_below(prng, large ? 6000 : 40));

		flood->size += put_request(flood->stream + flood->size, &(struct ask){ write, 0, offset, length }, i);
		flood->size += write ? length : 0;
		flood->wanted += NBD_WIRE_REPLY + (write ? 0 : length);
		assert_true(flood->size < FLOOD_MAX - 4 * MIB);
	}
}

/* Sends a piece of any length, and now and then looks what has come. */
static void flood_step(struct flood *flood, struct prng *prng, int fd, unsigned char *sink)
{
	size_t piece = 1 + prng_below(prng, prng_one_in(prng, 4) ? 300000 : 100), rest = flood->size - flood->sent;
	ssize_t n = 0;

	if (rest)
		n = send(fd, flood->stream + flood->sent, piece < rest ? piece : rest, MSG_DONTWAIT | MSG_NOSIGNAL);
	flood->sent += n > 0 ? (size_t)n : 0;
	if (!prng_one_in(prng, 3) || flood->got == flood->wanted)
		return;
	n = recv(fd, sink, 1 + prng_below(prng, 4 * MIB - 1), MSG_DONTWAIT);
	assert_int_not_equal(n, 0);
	flood->got += n > 0 ? (size_t)n : 0;
}

static bool left, left_whole;

static void on_left(void *data, bool whole)
{
	(void)data;
	left = true;
	left_whole = whole;
}

/* The server leaves, while the clients go on; another one takes the sockets. */
static void hand_over(struct flood *floods, struct prng *prng, unsigned char *sink)
{
	int sockets[CLIENTS];

	assert_int_equal(nbd_server_sockets(server, sockets, CLIENTS), CLIENTS);
	for (unsigned c = 0; c < CLIENTS; c++)
		sockets[c] = dup(sockets[c]);
	left = false;
	nbd_server_leave(server, on_left, NULL);
	for (unsigned i = 0; !left && i < TURNS; i++) {
		for (unsigned c = 0; floods && c < CLIENTS; c++)
			flood_step(&floods[c], prng, clients[c], sink);
		assert_int_equal(loop_turn(loop, floods ? 0 : TURN_NS), 0);
	}
	assert_true(left && left_whole);
	assert_int_equal(fake.busy, 0);
	assert_int_equal(nbd_server_new(&config, &server, NULL), 0);
	for (unsigned c = 0; c < CLIENTS; c++)
		assert_int_equal(nbd_server_add(server, sockets[c]), 0);
}

/* More requests than there is memory for, of all sizes, over all connections, in pieces, with replies that are read late. Every
 * `period` turns another server goes on; 0: never. */
static void flood(unsigned period)
{
	unsigned char *sink = io_buffer_new(4 * MIB);
	struct flood floods[CLIENTS];
	struct prng prng;
	bool more = true;

	prng_seed(&prng, 5 + period);
	start(CLIENTS);
	for (unsigned c = 0; c < CLIENTS; c++)
		flood_fill(&floods[c], &prng, MIB * (1 + c));
	for (unsigned i = 1; more && i < 100 * TURNS; i++) {
		more = false;
		for (unsigned c = 0; c < CLIENTS; c++) {
			flood_step(&floods[c], &prng, clients[c], sink);
			more |= floods[c].got < floods[c].wanted;
		}
		assert_int_equal(loop_turn(loop, 0), 0);
		if (period && i % period == 0)
			hand_over(floods, &prng, sink);
	}
	assert_false(more);
	assert_int_equal(fake.requests, CLIENTS * FLOOD_REQUESTS);
	assert_true(fake.most <= 8 && fake.most > 4);
	stop();
	for (unsigned c = 0; c < CLIENTS; c++)
		io_buffer_free(floods[c].stream, FLOOD_MAX);
	io_buffer_free(sink, 4 * MIB);
}

static void test_flood(void **state)
{
	(void)state;
	flood(0);
}

static void test_leave(void **state)
{
	(void)state;
	flood(20);
	closed = false;
	fake.requests = fake.most = 0;
	flood(1);
}

/* Nobody asks for anything when it is left. */
static void test_leave_idle(void **state)
{
	char data[512] = "x";

	(void)state;
	start(CLIENTS);
	for (unsigned i = 0; i < 3; i++) {
		for (unsigned c = 0; c < CLIENTS; c++)
			assert_int_equal(ask_write(clients[c], 0, 512, data), 0);
		hand_over(NULL, NULL, NULL);
	}
	stop();
}

/* Closed in the middle of everything. */
static void test_close(void **state)
{
	unsigned char stream[20 * NBD_WIRE_REQUEST];

	(void)state;
	start(CLIENTS);
	for (unsigned i = 0; i < 20; i++)
		put_request(stream + (size_t)i * NBD_WIRE_REQUEST, &(struct ask){ NBD_WIRE_READ, 0, MIB * i, MIB }, i);
	for (unsigned c = 0; c < CLIENTS; c++)
		assert_true(exchange(clients[c], stream, sizeof(stream) - c, NULL, 0));
	assert_int_equal(loop_turn(loop, 0), 0);
	stop();
	assert_int_equal(ended, 0);
}

/* Those who ask for more than they ever read. */
static void test_deaf(void **state)
{
	unsigned char head[NBD_WIRE_REQUEST], reply[NBD_WIRE_REPLY];

	(void)state;
	start(2);
	put_request(head, &(struct ask){ NBD_WIRE_READ, 0, 0, MIB }, 1);
	for (unsigned i = 0; i < 5; i++)
		assert_true(exchange(clients[0], head, sizeof(head), NULL, 0));
	put_request(head, &(struct ask){ .command = NBD_WIRE_FLUSH }, 2);
	assert_true(exchange(clients[1], head, sizeof(head), reply, sizeof(reply)));
	check_reply(reply, 2);
	close(clients[0]);
	clients[0] = -EBADF;
	wait_ended(1);
	stop();
}

#define ON(kind, test)                                                            \
	{                                                                         \
#test " on " kind, test, setup, teardown, (void *)(uintptr_t)kind \
	}
#define ALL(kind)                                                                                                     \
	ON(kind, test_good), ON(kind, test_without_data), ON(kind, test_errors), ON(kind, test_refused),              \
		ON(kind, test_read_only), ON(kind, test_bad_magic), ON(kind, test_too_much_data), ON(kind, test_cut), \
		ON(kind, test_goodbye), ON(kind, test_flood), ON(kind, test_close), ON(kind, test_deaf),              \
		ON(kind, test_leave), ON(kind, test_leave_idle)

int main(void)
{
	const struct CMUnitTest tests[] = { ALL("poll"), ALL("uring") };
	size_t n = sizeof(tests) / sizeof(tests[0]);

	if (loop_new("uring", 8, &loop, NULL)) {
		puts("# io_uring is forbidden here: not tested");
		n /= 2;
	} else {
		loop_free(loop);
	}
	return _cmocka_run_group_tests("export-nbd", tests, n, NULL, NULL);
}
