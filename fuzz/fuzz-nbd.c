/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The transmission phase of NBD: whatever a client sends, no request reaches beyond the disk, and the server ends when it is closed. */
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "device/device.h"
#include "export/nbd-server.h"
#include "fuzz.h"
#include "io/loop.h"

#define DISK (1u << 20)
#define PIECE 1000u

static char disk[DISK];
static unsigned under_way;

static void must(bool good)
{
	if (!good)
		abort();
}

/* In the place of the engine. Every byte of memory that it is given is touched. */
void device_submit(struct device *device, struct device_request *request)
{
	(void)device;
	must(request->offset <= DISK && request->length <= DISK - request->offset);
	must(request->offset % 512 == 0 && request->length % 512 == 0);
	must((request->length == 0) == (request->kind == DEVICE_FLUSH));
	if (request->kind == DEVICE_READ)
		memset(request->buffer, 1, request->length);
	else if (request->kind == DEVICE_WRITE)
		memcpy(disk, request->buffer, request->length);
	request->done(request, 0);
}

uint64_t device_size(const struct device *device)
{
	(void)device;
	return DISK;
}

static void on_ended(void *data, bool goodbye)
{
	(void)data;
	(void)goodbye;
	under_way--;
}

static void on_closed(void *data)
{
	*(bool *)data = true;
}

/* All that is there goes in, and what comes out is thrown away. */
static void talk(struct loop *loop, int fd, const uint8_t *data, size_t size)
{
	char sink[65536];
	ssize_t n;

	while (size && under_way) {
		n = send(fd, data, size < PIECE ? size : PIECE, MSG_DONTWAIT | MSG_NOSIGNAL);
		if (n > 0) {
			data += n;
			size -= (size_t)n;
		}
		must(loop_turn(loop, 0) == 0);
		while (recv(fd, sink, sizeof(sink), MSG_DONTWAIT) > 0)
			must(loop_turn(loop, 0) == 0);
	}
	(void)shutdown(fd, SHUT_WR);
	while (under_way) {
		must(loop_turn(loop, 1000000) == 0);
		while (recv(fd, sink, sizeof(sink), MSG_DONTWAIT) > 0)
			;
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct nbd_server_config config = { .depth = 4, .ended = on_ended };
	struct nbd_server *server;
	bool closed = false;
	int ends[2];

	must(loop_new("poll", 8, &config.loop, NULL) == 0);
	must(nbd_server_new(&config, &server, NULL) == 0);
	must(socketpair(AF_UNIX, SOCK_STREAM, 0, ends) == 0);
	under_way = 1;
	must(nbd_server_add(server, ends[1]) == 0);
	talk(config.loop, ends[0], data, size);
	close(ends[0]);
	nbd_server_close(server, on_closed, &closed);
	while (!closed)
		must(loop_turn(config.loop, 1000000) == 0);
	loop_free(config.loop);
	return 0;
}
