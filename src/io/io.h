/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * io.h - the bytes of one file.
 *
 * An I/O module is one const table. `uring` does direct I/O on the loop's ring, `sync` works on any file system by a few
 * threads, `sim` is the simulated disk of the tests. io_open() chooses by itself: uring when the loop has a ring and the
 * file takes O_DIRECT at 512-byte alignment, else sync.
 *
 * What the layers above may rely on, whatever the module:
 *  1. Offsets and lengths are multiples of 512, except in io_pread() and io_pwrite(), which take any.
 *     Buffers of any alignment are accepted; those aligned to io_file.memory_align are not copied.
 *  2. A read beyond the end of the file gives zeros. A short transfer never reaches the caller.
 *  3. After IO_ZERO and IO_PUNCH the range reads as zeros and the length of the file is unchanged. Where the file system
 *     cannot do it, zeros are written. IO_PUNCH gives the blocks back where that is possible.
 *  4. `done` is never called from inside io_submit(), and is called exactly once.
 *  5. Operations in flight at the same time may reach the disk in any order. What an IO_DATASYNC makes durable is every
 *     operation whose `done` was called before the sync was submitted, and the length of the file.
 *  6. Writes beyond the end make the file longer; a power cut may leave any length between old and new.
 */
#ifndef IO_IO_H
#define IO_IO_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/list.h"

struct loop;
struct ploop_error;
struct io_file;

enum io_kind {
	IO_READ,
	IO_WRITE,
	IO_ZERO,     /* reads as zeros afterwards, blocks kept */
	IO_PUNCH,    /* reads as zeros afterwards, blocks given back */
	IO_DATASYNC,
	IO_CLONE,    /* the range shares its blocks with that of another file; -EOPNOTSUPP where it cannot */
};

/* One operation. Embedded in the caller's struct and the caller's again when `done` is called. */
struct io_op {
	enum io_kind kind;
	struct io_file *file;
	uint64_t offset; /* bytes */
	uint64_t length; /* bytes; 0 with IO_DATASYNC */
	void *buffer;    /* IO_READ, IO_WRITE */
	struct io_file *source; /* IO_CLONE: the other file, of the same module */
	uint64_t source_offset;
	void (*done)(struct io_op *op, int result); /* 0 or a negative errno */

	struct list node;      /* the module's while in flight */
	uint64_t scratch[8];   /* the module's while in flight */
};

enum io_open_flags {
	IO_RDONLY = 0,
	IO_RDWR = 1,
	IO_CREATE = 2,   /* must not exist; mode 0600 */
	IO_BUFFERED = 4, /* no O_DIRECT even where it would work */
};

struct io_ops {
	const char *name;
	const char *summary; /* one line for `ploop modules` */
	/* Whether this host can do it at all; says why not. Required. */
	int (*usable)(struct ploop_error *err);
	/* Opens a file; fills *ret with a struct that embeds io_file first. Required. */
	int (*open)(struct loop *loop, const char *path, unsigned flags, struct io_file **ret, struct ploop_error *err);
	void (*close)(struct io_file *file);
	void (*submit)(struct io_op *op);
	/* The rest is for the control path and may block. All required. 0 or a negative errno. */
	int (*pread)(struct io_file *file, void *buffer, size_t len, uint64_t offset); /* zeros beyond the end */
	int (*pwrite)(struct io_file *file, const void *buffer, size_t len, uint64_t offset);
	int (*sync)(struct io_file *file);
	int (*size)(struct io_file *file, uint64_t *ret);
	/* Sets the length. Making a file longer adds a hole. */
	int (*truncate)(struct io_file *file, uint64_t size);
	/* The next range with data at or after `offset`: [*ret_start, *ret_end). *ret_start is the file's size when there is
	 * none. A module that cannot tell says that all is data. */
	int (*next_data)(struct io_file *file, uint64_t offset, uint64_t *ret_start, uint64_t *ret_end);
	/* Bytes of blocks that the file holds on the host. */
	int (*allocated)(struct io_file *file, uint64_t *ret);
};

struct io_file {
	const struct io_ops *ops;
	struct loop *loop;
	char *path;            /* for messages; owned */
	unsigned flags;
	uint32_t memory_align; /* buffers aligned so are used in place */
	uint32_t block;        /* block size of the file system: holes come in multiples of it */
	bool direct;
	bool can_clone;        /* tried once; false after the first refusal */
	bool from_cache;       /* reads may take what the host has in its cache anyway: set by who knows that nobody writes */
};

/* The modules, NULL-terminated; `sim` is not among them. */
extern const struct io_ops *const io_modules[];
const struct io_ops *io_module_find(const char *name);

/*
 * Opens `path`, which must be a regular file. `module` NULL chooses. With `loop` NULL the file takes everything but
 * io_submit(): enough for tools that only look or that write a file once.
 */
int io_open(struct loop *loop, const struct io_ops *module, const char *path, unsigned flags, struct io_file **ret,
	    struct ploop_error *err);
/* NULL is accepted. No operation may be in flight. */
void io_close(struct io_file *file);

/* Starts an operation. Checks its arguments once, for all modules. */
void io_submit(struct io_op *op);

int io_pread(struct io_file *file, void *buffer, size_t len, uint64_t offset);
int io_pwrite(struct io_file *file, const void *buffer, size_t len, uint64_t offset);
int io_sync(struct io_file *file);
int io_size(struct io_file *file, uint64_t *ret);
int io_truncate(struct io_file *file, uint64_t size);
int io_next_data(struct io_file *file, uint64_t offset, uint64_t *ret_start, uint64_t *ret_end);
int io_allocated(struct io_file *file, uint64_t *ret);

/* Memory for I/O: aligned to 4096, zeroed, freed with io_buffer_free(). NULL when there is none. */
void *io_buffer_new(size_t len);
void *io_buffer_new_large(size_t len); /* multiples of 2 MiB, in large pages where there are some: for long transfers */
void io_buffer_free(void *buffer, size_t len);

#endif
