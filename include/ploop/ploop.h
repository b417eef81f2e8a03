/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * ploop.h - the public interface of libploop.
 *
 * Conventions, the same everywhere:
 *  - A function returns 0 or a negative errno. Predicates return bool.
 *  - A last parameter `struct ploop_error *err` takes the text for a person and the exit status of the original
 *    tool. It may be NULL. It is written on failure only.
 *  - Results go into `ret_` parameters, which are untouched on failure.
 *  - Offsets and lengths are bytes.
 *  - The library never prints and never exits. ploop_set_log() says where its messages go.
 */
#ifndef PLOOP_PLOOP_H
#define PLOOP_PLOOP_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define PLOOP_API __attribute__((visibility("default")))

/* Exit statuses of the command line: the numbers of the original tool. */
enum ploop_exit {
	PLOOP_EXIT_OK = 0,
	PLOOP_EXIT_CREAT = 1,
	PLOOP_EXIT_DEVICE = 2,
	PLOOP_EXIT_DEVIOC = 3,
	PLOOP_EXIT_OPEN = 4,
	PLOOP_EXIT_MALLOC = 5,
	PLOOP_EXIT_READ = 6,
	PLOOP_EXIT_WRITE = 7,
	PLOOP_EXIT_SYSFS = 9,
	PLOOP_EXIT_FORMAT = 11, /* PLOOPFMT of the original: the image is broken */
	PLOOP_EXIT_SYS = 12,
	PLOOP_EXIT_PROTOCOL = 13,
	PLOOP_EXIT_LOOP = 14,
	PLOOP_EXIT_FSTAT = 15,
	PLOOP_EXIT_FSYNC = 16,
	PLOOP_EXIT_BUSY = 17,
	PLOOP_EXIT_FLOCK = 18,
	PLOOP_EXIT_FTRUNCATE = 19,
	PLOOP_EXIT_FALLOCATE = 20,
	PLOOP_EXIT_MOUNT = 21,
	PLOOP_EXIT_UMOUNT = 22,
	PLOOP_EXIT_LOCK = 23,
	PLOOP_EXIT_MKFS = 24,
	PLOOP_EXIT_RESIZE_FS = 26,
	PLOOP_EXIT_MKDIR = 27,
	PLOOP_EXIT_RENAME = 28,
	PLOOP_EXIT_ABORT = 29,
	PLOOP_EXIT_RELOC = 30,
	PLOOP_EXIT_CHANGE_GPT = 33,
	PLOOP_EXIT_UNLINK = 35,
	PLOOP_EXIT_MKNOD = 36,
	PLOOP_EXIT_IN_USE = 37, /* PLOOPINUSE: the image was not closed, or somebody uses it */
	PLOOP_EXIT_PARAM = 38,
	PLOOP_EXIT_DISKDESCR = 39,
	PLOOP_EXIT_NOT_MOUNTED = 40, /* DEV_NOT_MOUNTED */
	PLOOP_EXIT_FSCK = 41,
	PLOOP_EXIT_NO_SNAPSHOT = 43,
	PLOOP_EXIT_NO_CBT = 44,
	PLOOP_EXIT_CRYPT = 45,
	PLOOP_EXIT_UMOUNT_BUSY = 46,
};

#define PLOOP_ERROR_TEXT 1024

/* What went wrong. Owned by the caller; needs no clean-up. */
struct ploop_error {
	int code;                    /* negative errno */
	enum ploop_exit status;      /* what the command line exits with */
	char text[PLOOP_ERROR_TEXT]; /* one line: what, which file, what to do */
};

/* Levels of the original's `-v`: -1 errors, 0 results, 1.. more and more detail; the tool's default is 3. */
typedef void (*ploop_log_fn)(void *data, int level, const char *text);

/*
 * Sends the library's messages to `fn` (NULL: nowhere, the default). Process-wide; call it before any thread is made.
 * The environment variable PLOOP_DEBUG=io,map,... sends debug messages of these rooms to standard error.
 */
PLOOP_API void ploop_set_log(ploop_log_fn fn, void *data);

/*
 * How far a long operation is: called now and then, on the caller's thread. `stage` names what is being done; `total` is 0
 * when nobody knows. Anything but 0 asks the operation to stop, which then fails with -ECANCELED and leaves things as its
 * description says. Where such a function is a parameter it may be NULL.
 */
typedef int (*ploop_progress_fn)(void *data, const char *stage, uint64_t done, uint64_t total);

/* New disks */

enum ploop_init_flags {
	PLOOP_INIT_NO_LAZY = 1,      /* initialise all tables of the file system now */
	PLOOP_INIT_NO_PARTITION = 2, /* the file system starts at the first byte; no partition table */
	PLOOP_INIT_SPARSE = 4,       /* "raw": a hole instead of blocks */
};

/* What ploop_init() makes. Zero it, fill in `image` and `size` and what shall differ from the default. */
struct ploop_init_params {
	const char *image;        /* the file to make */
	uint64_t size;            /* bytes; rounded up to whole clusters */
	const char *format;       /* "expanded" (also "ploop1"; the default), "preallocated" or "raw" */
	unsigned version;         /* 1 or 2 (the default) */
	uint32_t cluster;         /* bytes; 0: 1 MiB */
	unsigned flags;           /* enum ploop_init_flags */
	const char *fstype;       /* "ext4" (the default), "ext3", "xfs", or "none": an empty disk */
	uint32_t fs_block;        /* bytes; 0: 4096 */
	uint64_t bytes_per_inode; /* ext: one inode for so many bytes; 0: 16384, 8192 below 8 GiB, or less where `from` has more files */
	uint64_t inodes;          /* ext: how many; 0: by bytes_per_inode */
	const char *label;        /* of the file system; NULL: none */
	const char *from;         /* ext: a folder, a tar archive or "-" to fill the file system with; NULL: leave it empty */
	ploop_progress_fn progress; /* NULL: none */
	void *progress_data;
};

/*
 * Makes a disk: an image, with a partition table and a file system in it, and beside it the descriptor DiskDescriptor.xml.
 * Needs no privileges and no device. On failure, or when it was cancelled, no file is left. -EEXIST, status 38, when the image
 * or the descriptor is there already. Example: examples/create.c.
 */
PLOOP_API int ploop_init(const struct ploop_init_params *params, struct ploop_error *err);

/* The version of the library, for example "0.1.0". */
PLOOP_API const char *ploop_version(void);

/*
 * Devices: disks that are mounted, each served by a process ploopd of its own. All of this needs root.
 */

/* What is to be served, and how. Zero the struct; what is NULL, 0 or false is not asked for. */
struct ploop_mount {
	const char *const *operands;  /* one DiskDescriptor.xml or its folder, or images, base first */
	unsigned noperands;
	const char *device;           /* "/dev/ploop3"; NULL: a free one */
	const char *target;           /* where to mount the file system; NULL: only the device is wanted */
	const char *fstype, *options; /* of the file system; NULL: what is found there; no options */
	const char *base_format;      /* "raw" or "ploop1"; NULL: found out */
	uint32_t cluster;             /* bytes; for a raw base without descriptor */
	const char *snapshot;         /* GUID; NULL: the top */
	const char *component;        /* a name, up to 63 characters, by which one disk can have several devices */
	const char *front_end;        /* see `ploop modules`; NULL: the best that this host can run */
	const char *io_module;        /* NULL: chosen for each file */
	const char *log;              /* absolute path of a file for ploopd's messages; NULL: syslog */
	bool read_only;               /* no byte of any image is written; the journal is not replayed */
	bool fsck;                    /* check and preen the file system first */
	bool outside;                 /* images outside the descriptor's folder are wanted */
	bool fail_when_full;          /* when the host has no space left: errors instead of waiting */
};

struct ploop_mounted {
	char device[64];    /* "/dev/ploop0" */
	char partition[64]; /* what was mounted, "/dev/ploop0p1" or the device; "" when nothing was asked for */
	int fsck_status;    /* exit status of the check; 0 when there was none */
};

/*
 * Starts a ploopd for a disk and, when a target is given, mounts the file system. When it fails nothing is left behind.
 * Example: examples/mount.c.
 */
PLOOP_API int ploop_mount(const struct ploop_mount *what, struct ploop_mounted *ret, struct ploop_error *err);

/* Names one device: by `device`, or `target`, or `image` (descriptor, its folder, or image file) and `component`. */
struct ploop_which {
	const char *device, *target, *image, *component;
};

/*
 * Unmounts the file systems of a device and ends its ploopd. 0 says that all that was written is in the image, and that the
 * image is closed. Clears a device whose ploopd is dead. -ENODEV when there is no such device (status 40 for a descriptor).
 */
PLOOP_API int ploop_umount(const struct ploop_which *which, struct ploop_error *err);

/* The same lazily: the file system disappears from view now, the device goes as soon as nobody uses it any more. */
PLOOP_API int ploop_umount_lazy(const struct ploop_which *which, struct ploop_error *err);

/* All devices. Goes on after a failure, and returns the first one. */
PLOOP_API int ploop_umount_all(struct ploop_error *err);

/* Ends the ploopd of a device, but unmounts nothing: -EBUSY when the device is in use. */
PLOOP_API int ploop_stop(const char *device, struct ploop_error *err);

/* Clears a device whose ploopd is dead; -EBUSY when it lives. Not an error when there is no such device. */
PLOOP_API int ploop_clear(const char *device, struct ploop_error *err);

/*
 * Gives a running device, with all that uses it, to another ploopd: to `program`, or with NULL to the one that a mount would start. Who
 * uses the device sees a pause. Returns when the new one serves; -EBUSY and nothing changed while a long operation is under way.
 */
PLOOP_API int ploop_upgrade(const char *device, const char *program, struct ploop_error *err);

struct ploop_device {
	char *name;      /* "ploop0" */
	char *device;    /* "/dev/ploop0" */
	bool alive;      /* false: its ploopd is dead; ploop_umount() clears it. What follows may be NULL then */
	char *failure;   /* why it is dead, when it died so often that it was given up; else NULL */
	int pid;         /* of ploopd, the process that keeps the device; 0 when dead */
	int engine;      /* the process that serves it; 0: none at this moment */
	char *node;      /* the kernel's name, "/dev/loop3" */
	char *front_end; /* "fuse" */
	char **images;   /* absolute paths, base first */
	size_t nimages;
	char *descriptor, *snapshot, *component; /* or NULL */
	char **mounts;   /* where it is mounted, as this process sees it */
	size_t nmounts;
	bool read_only;
	uint64_t size;    /* bytes */
	uint32_t cluster; /* bytes */
};

/* All devices, by number. The caller frees with ploop_list_free(). */
PLOOP_API int ploop_list(struct ploop_device **ret, size_t *ret_n, struct ploop_error *err);
PLOOP_API void ploop_list_free(struct ploop_device *devices, size_t n);

/* One device; -ENODEV when there is none. The caller clears with ploop_device_clear(). */
PLOOP_API int ploop_find(const struct ploop_which *which, struct ploop_device *ret, struct ploop_error *err);
PLOOP_API void ploop_device_clear(struct ploop_device *device);

/* The number that ploop_mount() would choose now. */
PLOOP_API int ploop_next_number(unsigned *ret, struct ploop_error *err);

/* The counters of a device, in their order. */
struct ploop_counter {
	char name[32];
	uint64_t value;
};
PLOOP_API int ploop_counters(const char *device, struct ploop_counter **ret, size_t *ret_n, struct ploop_error *err);
/* Sets some counters; all to 0 when `counters` is NULL. */
PLOOP_API int ploop_counters_set(const char *device, const struct ploop_counter *counters, size_t n, struct ploop_error *err);

/* ---- Descriptors ---- */

/* What a new descriptor is made from. Zero all that does not matter. */
struct ploop_restore {
	const char *folder; /* where DiskDescriptor.xml goes */
	const char *image;  /* the base */
	const char *format; /* "raw" or "ploop1"; NULL: ploop1 */
	uint32_t cluster;   /* bytes, for raw; 0: the largest up to 1 MiB that divides its size */
};

/*
 * Writes the descriptor of a disk whose only image is the base, in the place of one that is lost or broken. Snapshots are not
 * found again. Refuses (-EEXIST) to replace a descriptor that names more images than one.
 */
PLOOP_API int ploop_restore_descriptor(const struct ploop_restore *what, struct ploop_error *err);

/* A disk is what its descriptor says, the files, and the images of a device that runs on them. */
enum ploop_repair_side {
	PLOOP_REPAIR_DESCRIPTOR,
	PLOOP_REPAIR_FILES,
	PLOOP_REPAIR_DEVICE,
};

struct ploop_repair {
	enum ploop_repair_side behind; /* which of the three */
	char *text, *remedy;           /* one line each: what is not in line, and what puts it right */
	bool possible;                 /* false: it needs a decision, which the remedy names */
	bool done;
	struct ploop_error error; /* why it was not done, though it was to be; code 0: no error */
};

/*
 * Compares descriptor, files and devices, tells which is behind, and unless `dry_run` puts right what needs no decision; no data
 * is dropped by that. The caller frees with ploop_repair_free().
 */
PLOOP_API int ploop_repair_descriptor(const char *disk, bool dry_run, struct ploop_repair **ret, size_t *ret_n,
				      struct ploop_error *err);
PLOOP_API void ploop_repair_free(struct ploop_repair *items, size_t n);

/* A word such as "device", the same in JSON. */
PLOOP_API const char *ploop_repair_side_name(enum ploop_repair_side side);

/* ---- check: what is wrong with an image, and putting it right ---- */

/* What may be written. Each level includes those before it. */
enum ploop_check_repair {
	PLOOP_CHECK_REPAIR_NONE,  /* nothing */
	PLOOP_CHECK_REPAIR_LEAKS, /* give back space that nothing uses */
	PLOOP_CHECK_REPAIR_SAFE,  /* whatever can be put right without loss of data */
	PLOOP_CHECK_REPAIR_ALL,   /* also clear index entries that lead nowhere: what was there reads as zeros */
};

/* Kinds of findings; ploop_check_kind_name() gives the word for each. */
enum ploop_check_kind {
	PLOOP_CHECK_HEADER,      /* a header that no place in the file can be computed from; nothing more is checked */
	PLOOP_CHECK_CONVERTING,  /* a change of the version was interrupted; nothing more is checked */
	PLOOP_CHECK_IN_USE,      /* not closed properly */
	PLOOP_CHECK_FLAGS,       /* hints in the header that are not true */
	PLOOP_CHECK_SIZE_FIELD,  /* bits of the size that version 1 does not have */
	PLOOP_CHECK_ENTRIES,     /* more index entries than the disk has clusters */
	PLOOP_CHECK_DATA_OFFSET, /* the data area cannot start where the header says */
	PLOOP_CHECK_SHORT,       /* the file ends before its data area */
	PLOOP_CHECK_LENGTH,      /* the file ends inside a cluster */
	PLOOP_CHECK_PADDING,     /* bytes other than 0 behind the index */
	PLOOP_CHECK_UNALIGNED,   /* an entry that points between clusters */
	PLOOP_CHECK_BEFORE_DATA, /* an entry that points into the index */
	PLOOP_CHECK_BEYOND_FILE, /* an entry that points behind the end of the file */
	PLOOP_CHECK_BEYOND_DISK, /* an entry for a cluster that the disk does not have */
	PLOOP_CHECK_DUPLICATE,   /* a cluster of the file that two entries point to */
	PLOOP_CHECK_EXTENSION_STALE, /* an extension that whoever wrote last did not know or did not close */
	PLOOP_CHECK_EXTENSION_KEPT,  /* an extension that forbids writing to the image */
	PLOOP_CHECK_EXTENSION,       /* an extension that is damaged */
	PLOOP_CHECK_BITMAP,          /* a dirty bitmap that is damaged or shares clusters with data */
	PLOOP_CHECK_LEAK,            /* space inside the file that nothing uses */
	PLOOP_CHECK_TAIL,            /* space at the end of the file that nothing uses */
	PLOOP_CHECK_KINDS,
};

enum ploop_check_verdict {
	PLOOP_CHECK_FOUND, /* nothing was to be repaired */
	PLOOP_CHECK_FIXED,
	PLOOP_CHECK_SKIPPED, /* a higher level of repair, or another run, would do it */
};

struct ploop_check_finding {
	const char *path;
	enum ploop_check_kind kind;
	enum ploop_check_verdict verdict;
	uint64_t cluster;      /* of the disk, UINT64_MAX when it is about none */
	uint64_t file_cluster; /* of the file, UINT64_MAX when it is about none */
	uint64_t bytes;        /* how much space or how many bytes it is about, or 0 */
	const char *text;      /* one line for a person */
};

/* What the check of one image file came to. */
struct ploop_check_image {
	const char *path, *format;
	uint32_t version;   /* 0 for raw */
	uint64_t size;      /* of the disk */
	uint32_t cluster;   /* bytes */
	uint64_t entries;   /* of the index */
	uint64_t mapped;    /* of these, with data */
	uint64_t file_size; /* at the end */
	uint64_t leaked;    /* bytes of blocks that nothing uses, and that are still there */
	bool in_use;        /* at the end */
	bool changed;       /* anything was written */
	uint64_t errors;    /* findings of damage that are left */
	int needed; /* the level of repair that would do away with them; -1: none does, or there are none */
	uint64_t found[PLOOP_CHECK_KINDS], fixed[PLOOP_CHECK_KINDS];
	enum ploop_exit
		status; /* 0; 11 damage is left; 37 only the in-use mark is left; 7 it could not be taken away */
};

struct ploop_check_options {
	enum ploop_check_repair repair;
	bool drop_in_use; /* take away the mark of an image that was not closed, when nothing else is wrong with it */
	bool read_only;   /* promise that nothing is written: repair and drop_in_use then only say what would be */
	bool raw;         /* the operand is a raw image */
	uint32_t cluster; /* bytes; with raw, required */
	const char *snapshot; /* of a descriptor: check the images up to this GUID; NULL: all up to the top */
	bool outside;         /* of a descriptor: images outside its folder too */
	const char *undo; /* a file to make that ploop_check_undo() can go back with; NULL: none. For one image only */
	void (*finding)(void *data, const struct ploop_check_finding *finding); /* may be NULL */
	void (*image)(void *data, const struct ploop_check_image *image);       /* after each image; may be NULL */
	ploop_progress_fn progress;
	void *data; /* for all of them */
};

/*
 * Checks an image, or every image that a descriptor names. Writes only what `options` (NULL: read and report) allow, and at any
 * moment leaves an image that is no worse than before. Returns 0 when the check was made, whatever it found: *ret_status is the
 * first image's status that is not 0. Fails when an image cannot be read or is in use.
 */
PLOOP_API int ploop_check(const char *operand, const struct ploop_check_options *options, enum ploop_exit *ret_status,
			  struct ploop_error *err);

/* Puts back what a check has changed and kept in `undo`. Refuses (-ESTALE) when the image was changed since, unless `force`. */
PLOOP_API int ploop_check_undo(const char *image, const char *undo, bool force, struct ploop_error *err);

/* A word such as "duplicate", the same in JSON. */
PLOOP_API const char *ploop_check_kind_name(enum ploop_check_kind kind);

/* ---- Resize: the device, its partition and its file system in one go ---- */

enum ploop_resize_flags {
	PLOOP_RESIZE_OFFLINE = 1, /* refuse (-EBUSY) when the disk is in use, where only a balloon makes it smaller */
};

/* Zero it, fill in `disk` and `size`. */
struct ploop_resize {
	const char *disk; /* a descriptor or its folder */
	uint64_t size;    /* bytes of the disk; rounded up to whole clusters */
	unsigned flags;   /* enum ploop_resize_flags */
	ploop_progress_fn progress; /* NULL: none */
	void *progress_data;
};

/* What it came to. */
struct ploop_resized {
	uint64_t size;      /* of the disk */
	const char *fs;     /* static text, "ext4"; NULL: none that is known, and only the disk has a new size */
	uint64_t fs_size;   /* bytes that the file system lies in */
	bool disk_larger;   /* than was asked for: snapshots, or whoever uses it, need it so large */
	bool ballooned;     /* a balloon takes the rest of the file system away */
};

/*
 * Makes a disk larger or smaller: images, device, partition table, last partition and the ext or XFS file system in it. In use it grows
 * under whoever uses it. Needs root. However it is cut off, the disk opens and mounts, and the same call again finishes.
 * Status 38 with the true minimum when it is too small for what is in it: nothing was touched then.
 */
PLOOP_API int ploop_resize(const struct ploop_resize *what, struct ploop_resized *ret, struct ploop_error *err);

struct ploop_resize_info {
	uint64_t size;       /* of the disk, bytes */
	uint32_t cluster;    /* bytes */
	char device[64];     /* that serves it; "": none */
	unsigned partition;  /* the last one, that a resize changes; 0: there is no partition table */
	uint64_t start, end; /* bytes of the disk between which the file system may lie */
	const char *fs;      /* static text, "ext4" or "xfs"; NULL: none that is known */
	uint64_t fs_size, fs_block;
	uint64_t inodes;          /* ext: of the file system, as large as it is; else 0 */
	uint64_t bytes_per_inode; /* ext: in which ratio inodes come with growth; else 0 */
	bool minimum_known;
	uint64_t minimum, maximum; /* what may be asked for: sizes of the disk, bytes */
	char minimum_why[256], maximum_why[256]; /* one line each; why it is not known, too */
};

/*
 * How small and how large a disk can become, before anything is touched. The minimum of an ext file system that is not mounted
 * takes a check of it (on a copy of what it changes), and needs root; it is what ploop_resize() then does.
 */
PLOOP_API int ploop_resize_info(const char *disk, struct ploop_resize_info *ret, struct ploop_error *err);

/* ---- Modules: what this build and this host can do ---- */

enum ploop_family {
	PLOOP_FAMILY_FORMAT, /* what the bytes of an image mean */
	PLOOP_FAMILY_IO,     /* how the bytes of a file are moved */
	PLOOP_FAMILY_EXPORT, /* how the kernel reaches a disk: front ends */
};

struct ploop_module {
	enum ploop_family family;
	const char *name;              /* static text, as `summary` */
	const char *summary;           /* one line */
	bool usable;                   /* here and now */
	char reason[PLOOP_ERROR_TEXT]; /* why it is not usable, else "" */
};

/* Module number n, counted from 0 through all families; false when there is no such. */
PLOOP_API bool ploop_module_get(unsigned n, struct ploop_module *ret);

/* ---- A disk, read in process: no daemon, no device, no root ---- */

/* Which files make up the disk. Zero all that does not matter. */
struct ploop_files {
	const char *const *paths; /* one descriptor, or its folder, or image files, base first */
	unsigned npaths;
	const char *format;   /* of the base: "raw" or "ploop1"; NULL: what the descriptor or the file says */
	uint32_t cluster;     /* bytes, for a raw base without descriptor, which does not say; else 0 */
	const char *snapshot; /* GUID of the snapshot to open, with braces; NULL: the disk as it is now */
	bool outside;         /* follow the descriptor to files outside its folder */
	const char *io;       /* name of the I/O module; NULL: chosen by itself */
	bool in_use;          /* look also at a disk that somebody writes to: as its index was flushed last, without any lock. What
	                       * lies where is good to know; what is read need not be what he wrote */
};

struct ploop_disk;

/*
 * Opens a disk for reading; no byte of any file is written. The files are locked against writers until ploop_disk_close().
 * A disk is used by one thread at a time.
 */
PLOOP_API int ploop_disk_open(const struct ploop_files *files, struct ploop_disk **ret, struct ploop_error *err);
PLOOP_API void ploop_disk_close(struct ploop_disk *disk); /* NULL is accepted */

PLOOP_API uint64_t ploop_disk_size(const struct ploop_disk *disk);
PLOOP_API uint32_t ploop_disk_cluster(const struct ploop_disk *disk);
PLOOP_API unsigned ploop_disk_levels(const struct ploop_disk *disk);

/* Reads `length` bytes at `offset`; both of any alignment, inside the disk. */
PLOOP_API int ploop_disk_read(struct ploop_disk *disk, void *buffer, size_t length, uint64_t offset,
			      struct ploop_error *err);

/* One file of the stack; level 0 is the base. */
struct ploop_level {
	const char *path;    /* belongs to the disk */
	const char *format;  /* static text */
	uint32_t version;    /* of ploop1: 1 or 2 */
	uint64_t size;       /* of the disk, as this file says */
	uint64_t length;     /* of the file */
	uint64_t allocated;  /* bytes of blocks that it holds on the host */
	uint64_t data_start; /* byte of the file where the first cluster may lie */
};
PLOOP_API int ploop_disk_level(struct ploop_disk *disk, unsigned level, struct ploop_level *ret, struct ploop_error *err);

/* A stretch of the disk that lies in one piece in one file, or nowhere. */
struct ploop_extent {
	uint64_t offset, length; /* of the disk */
	bool mapped;             /* false: reads as zeros */
	unsigned level;
	uint64_t file_offset; /* of that level's file */
	bool partial;         /* some of it is newer: that part lies in the top's file, which was not closed */
};

/*
 * The longest such stretch that starts at `offset`, which is rounded down to a whole cluster; false at the end of the disk.
 *
 *	for (uint64_t at = 0; ploop_disk_extent(disk, at, &extent); at = extent.offset + extent.length)
 */
PLOOP_API bool ploop_disk_extent(const struct ploop_disk *disk, uint64_t offset, struct ploop_extent *ret);

/* ---- Bench: requests to a disk in process, without a front end ---- */

struct ploop_bench {
	const struct ploop_files *files;
	const char *loop;        /* "uring" or "poll"; NULL: chosen */
	uint64_t count;          /* requests; 0: 75000, or all clusters with first_write */
	unsigned depth;          /* in flight; 0: 64 */
	uint32_t length;         /* bytes of a request, a multiple of 512; 0: 4096 */
	uint64_t step;           /* bytes from one request to the next; 0: `length`, or a cluster with first_write */
	uint64_t offset;         /* byte of the disk where it starts */
	bool write;              /* destroys what is there; without it the disk is opened for reading only */
	bool first_write;        /* each write goes to the start of a cluster that nothing was written to yet */
	bool random;             /* anywhere from `offset` on, at multiples of `length` */
	unsigned flush_interval; /* flush after so many writes; 0: never before the end */
	bool no_drain;           /* do not wait for the requests in flight before a flush */
};

struct ploop_bench_result {
	uint64_t requests, bytes, flushes;
	uint64_t wall_ns; /* from the first request to the answer of the last */
	uint64_t cpu_ns;  /* of this process, in both modes, meanwhile */
	uint64_t size;    /* of the disk */
	uint32_t cluster;
	/* What was asked for, with the values that were chosen. `files` is as given. */
	struct ploop_bench run;
	const char *io; /* I/O module of the top; static text, as run.loop */
};

PLOOP_API int ploop_bench(const struct ploop_bench *bench, struct ploop_bench_result *ret, struct ploop_error *err);

/* ---- What a disk is made of, and how full it is ---- */

/* A file system, in the numbers that statvfs() gives: without what it keeps for itself. */
struct ploop_fs {
	const char *type; /* static text, "ext4" or "xfs"; NULL: nothing is known, see ploop_info.fs_error */
	uint64_t block;   /* bytes */
	uint64_t blocks, blocks_free;
	uint64_t inodes, inodes_free;
	bool approximate; /* it was not unmounted cleanly, and its superblock is as old as that */
};

/* One file of the disk. Level 0 is the base. */
struct ploop_image {
	char *file;         /* absolute path */
	char *uuid;         /* of the snapshot that it holds; NULL without a descriptor */
	bool temporary;     /* the snapshot goes when nobody uses it */
	const char *format; /* static text */
	uint32_t version;   /* of ploop1: 1 or 2; raw: 0 */
	uint64_t size;      /* of the disk, as this file says */
	uint64_t length;    /* of the file */
	uint64_t allocated; /* bytes of blocks that it holds on the host */
	bool in_use;        /* marked so: it is mounted, or was left so by a crash */
};

struct ploop_info {
	char *descriptor;         /* absolute path; NULL for bare images */
	uint64_t size;            /* bytes of the disk */
	uint32_t cluster;         /* bytes */
	uint32_t version;         /* of the top */
	bool encrypted;           /* the disk holds a LUKS volume */
	char *device, *partition; /* "/dev/ploop0"; NULL when it is not mounted */
	bool mapped_known;
	uint64_t mapped;          /* bytes of the disk that lie somewhere in a file */
	uint64_t allocated;       /* bytes of blocks that all files hold on the host, those of other branches too */
	bool space_known;         /* of ext file systems: */
	uint64_t reclaimable;     /* bytes of blocks in the top's file that the file system does not use: fstrim gives them back */
	uint64_t balloon;         /* bytes that the balloon takes; 0: there is none */
	struct ploop_fs fs;
	struct ploop_error fs_error;
	struct ploop_image *images; /* base first */
	unsigned nimages;
	struct ploop_image *others; /* of other branches: snapshots that the disk as it is now does not stand on */
	unsigned nothers;
};

/*
 * Looks at a disk, mounted or not; mounts nothing and writes nothing. `what` limits how far it looks. The caller clears.
 */
enum ploop_info_what {
	PLOOP_INFO_IMAGES = 0,  /* headers and files: always */
	PLOOP_INFO_DEVICE = 1,  /* who serves it */
	PLOOP_INFO_CONTENT = 2, /* what is mapped, and the file system; implies PLOOP_INFO_DEVICE */
};
PLOOP_API int ploop_info(const struct ploop_files *files, unsigned what, struct ploop_info *ret, struct ploop_error *err);
PLOOP_API void ploop_info_clear(struct ploop_info *info);

/* ---- Snapshots ---- */

#define PLOOP_UUID 39 /* 36 characters, two braces and a NUL */

enum ploop_snapshot_flags {
	PLOOP_SNAPSHOT_TEMPORARY = 1, /* it goes by itself when nobody uses it any more */
	PLOOP_SNAPSHOT_NO_FREEZE = 2, /* leave the mounted file system alone: the snapshot is as after a crash */
	PLOOP_SNAPSHOT_KEEP_TOP = 4,  /* ploop_snapshot_switch(): what was the top becomes a snapshot of its own */
};

/*
 * Takes a snapshot of a disk, mounted or not: what is there now gets the name `uuid` (NULL: a new one; with or without
 * braces), and what is written from now on goes to a new image file. `disk` is a descriptor or its folder. `ret_uuid` may
 * be NULL. -EEXIST when there is a snapshot of that name. Whatever is interrupted when, the next change of the disk
 * finishes or undoes it.
 */
PLOOP_API int ploop_snapshot(const char *disk, const char *uuid, unsigned flags, char ret_uuid[PLOOP_UUID],
			     struct ploop_error *err);

/* The same for a device: `delta` is the new image file. A descriptor that names the device's top learns of it. */
PLOOP_API int ploop_snapshot_device(const char *device, const char *delta, unsigned flags, struct ploop_error *err);

/*
 * Takes a temporary snapshot and mounts it read-only beside the running disk: `what` says how, with the descriptor as the
 * only operand and a component. When the mount fails the snapshot is merged again.
 */
PLOOP_API int ploop_snapshot_mount(const char *uuid, const struct ploop_mount *what, struct ploop_mounted *ret,
				   struct ploop_error *err);

/*
 * A temporary snapshot that nobody owns is merged when the next one is taken, one is deleted, or the disk is mounted. Its owner is a
 * device that was opened at it, or who holds it by this call, before it is taken or after: until *ret_fd is closed, or he dies.
 */
PLOOP_API int ploop_snapshot_hold(const char *disk, const char *uuid, int *ret_fd, struct ploop_error *err);

/* Goes back: the disk, which is not mounted, is as it was in that snapshot. What was written since is lost, unless it is
 * kept as a snapshot: then `ret_kept` (may be NULL) is its name. */
PLOOP_API int ploop_snapshot_switch(const char *disk, const char *uuid, unsigned flags, char ret_kept[PLOOP_UUID],
				    struct ploop_error *err);

/*
 * Deletes a snapshot. What was written on top of it is merged with it, as by ploop_snapshot_merge(); when it has several children
 * one is merged, and each other one first gets what it needs. Where that cannot be, as several of them are in use or the base is
 * raw, it is marked temporary (a warning in the log).
 */
PLOOP_API int ploop_snapshot_delete(const char *disk, const char *uuid, struct ploop_error *err);

struct ploop_snapshot_info {
	char uuid[PLOOP_UUID], parent[PLOOP_UUID];
	char *file;          /* absolute path; NULL when it is described elsewhere */
	bool top;            /* what is written now */
	bool temporary;      /* goes when nobody uses it */
	unsigned children;
	bool there;          /* the file is; what follows is 0 when not */
	uint64_t length;     /* of the file */
	uint64_t allocated;  /* bytes of blocks that it holds on the host */
	uint64_t modified;   /* seconds since 1970 */
	char *device;        /* a device that has it as its top; NULL: none */
	char *owner;         /* the component of that device; NULL: none. A temporary one without is done with */
};

/* All snapshots of a disk, in the order of its descriptor; takes no lock. The caller frees with ploop_snapshots_free(). */
PLOOP_API int ploop_snapshots(const char *disk, struct ploop_snapshot_info **ret, size_t *ret_n, struct ploop_error *err);
PLOOP_API void ploop_snapshots_free(struct ploop_snapshot_info *snapshots, size_t n);

/* ---- Leftovers ---- */

enum ploop_leftover_kind {
	PLOOP_LEFTOVER_DELTA,   /* an image that no descriptor names */
	PLOOP_LEFTOVER_TMP,     /* half of a file that was about to be replaced */
	PLOOP_LEFTOVER_JOURNAL, /* an operation that was interrupted */
	PLOOP_LEFTOVER_LOCK,    /* a lock file that nobody holds; harmless */
	PLOOP_LEFTOVER_DEVICE,  /* a device whose ploopd is dead */
	PLOOP_LEFTOVER_NODE,    /* a name in /dev that leads nowhere */
	PLOOP_LEFTOVER_MOUNT,   /* a folder where a dead device is mounted; goes with the device */
};

struct ploop_leftover {
	enum ploop_leftover_kind kind;
	char *path;
	char *parent;       /* PLOOP_LEFTOVER_DELTA: the image that it seems to lie on; NULL: no guess */
	uint64_t allocated; /* bytes that removing it gives back */
	uint64_t modified;  /* seconds since 1970; 0: not known */
	bool removed;
	struct ploop_error error; /* why it was not, though it was to be; code 0: no error */
};

/*
 * What interrupted operations and other software left: in the folder of `disk` (a descriptor or its folder), or, when that
 * is NULL, among the devices. `remove` removes it; lock files stay. The caller frees with ploop_leftovers_free().
 */
PLOOP_API int ploop_gc(const char *disk, bool remove, struct ploop_leftover **ret, size_t *ret_n, struct ploop_error *err);
PLOOP_API void ploop_leftovers_free(struct ploop_leftover *leftovers, size_t n);

/* A word such as "delta", the same in JSON. */
PLOOP_API const char *ploop_leftover_name(enum ploop_leftover_kind kind);

/* ---- Merge: the data of upper images comes into a lower one ---- */

/* Images that no device uses. Zero it, fill in `images` and what shall differ from the default. */
struct ploop_merge {
	const char *const *images; /* base first: what all others are merged into */
	unsigned nimages;          /* at least 2 */
	const char *base_format;   /* "raw" or "ploop1"; NULL: ploop1 */
	const char *new_image;     /* leave the base as it is: make this file, and merge all into it; NULL: into the base */
	uint64_t bytes_a_second;   /* 0: as fast as it goes */
	ploop_progress_fn progress; /* NULL: none */
	void *progress_data;
};

/*
 * Merges images. The files above the base are only read. However it is cut off, all images together are the same disk as
 * before, and merging again is right. A DiskDescriptor.xml beside the base that names all of them learns of it; one that would
 * then be wrong is a reason to refuse. -ECANCELED: stopped by `progress`.
 */
PLOOP_API int ploop_merge(const struct ploop_merge *merge, struct ploop_error *err);

#define PLOOP_MERGE_TOP UINT32_MAX

/* Levels of a device in use. Zero it, fill in the device and the levels. */
struct ploop_merge_levels {
	const char *device;      /* "/dev/ploop0" */
	uint32_t low, high;      /* low + 1 .. high are merged into low; PLOOP_MERGE_TOP as `high`: the top */
	uint64_t bytes_a_second; /* 0: as fast as it goes */
	ploop_progress_fn progress; /* NULL: none */
	void *progress_data;
};

/*
 * Merges levels of a device while it is used. Their files are empty images then, which nothing needs. Anything but 0 from
 * `progress` stops the merge (-ECANCELED): the device works on, and merging again goes on where it was. When this process
 * dies the merge goes on; see ploop_merge_status(). The descriptor learns of it as with ploop_merge().
 */
PLOOP_API int ploop_merge_levels(const struct ploop_merge_levels *merge, struct ploop_error *err);

enum ploop_merge_state {
	PLOOP_MERGE_NONE, /* there was none since the device was mounted */
	PLOOP_MERGE_RUNNING,
	PLOOP_MERGE_PAUSED,
	PLOOP_MERGE_DONE,
	PLOOP_MERGE_FAILED, /* or stopped; `error` says why */
};

struct ploop_merge_status {
	enum ploop_merge_state state;
	bool top;             /* the top is merged now; else levels below it */
	uint32_t low, high;   /* as asked for */
	uint64_t done, total; /* bytes, of what is merged now */
	struct ploop_error error;
};
PLOOP_API int ploop_merge_status(const char *device, struct ploop_merge_status *ret, struct ploop_error *err);

/* A word such as "running", the same in JSON. */
PLOOP_API const char *ploop_merge_state_name(enum ploop_merge_state state);

/* For the merge that runs; nothing happens when there is none. Stopping waits until it has stopped. */
PLOOP_API int ploop_merge_pause(const char *device, bool paused, struct ploop_error *err);
PLOOP_API int ploop_merge_stop(const char *device, struct ploop_error *err);

/* Zero it, fill in `disk` and what is wanted. */
struct ploop_snapshot_merge {
	const char *disk;          /* a descriptor or its folder */
	const char *uuid;          /* is merged into its parent, and keeps its name; NULL: the top */
	const char *ancestor;      /* all between are merged as well, down into this one; NULL: the parent */
	bool all;                  /* the top and all below it are merged into the base */
	const char *new_image;     /* into this new file, of a disk that is not mounted; NULL: into the lowest image */
	uint64_t bytes_a_second;   /* 0: as fast as it goes */
	ploop_progress_fn progress; /* NULL: none */
	void *progress_data;
};

/*
 * Merges snapshots of a disk, mounted or not, as ploop_merge_levels() or ploop_merge() would, and removes the files that are
 * not needed any more. Other snapshots that are made on one of them get what they need first, in new files of their own.
 */
PLOOP_API int ploop_snapshot_merge(const struct ploop_snapshot_merge *what, struct ploop_error *err);

/* ---- Size ---- */

/* What shall become larger: one of the first two. Zero it, fill in that and the size. */
struct ploop_grow {
	const char *device; /* "/dev/ploop0" */
	const char *disk;   /* a descriptor or its folder, mounted or not; or an image that nobody uses */
	const char *format; /* of an image, "raw" or "ploop1"; NULL: what a descriptor says, else ploop1 */
	uint64_t size;      /* bytes; rounded up to whole clusters, or down where the format ends */
	bool shrink;        /* a smaller size is wanted, too, of what is not in use; what is beyond is gone */
};

/*
 * Gives a disk another size: the images and the device, not the file system or the partitions on it. Only the image of the top
 * changes; what lies below keeps its size and reads as zeros beyond it. Cut off anywhere, the disk has the old size or the new
 * one, and growing it again, also to the size that it has, finishes what was begun. The descriptor learns of it, also when it
 * only lies beside the image. *ret_size (may be NULL) is the size in the end. -EINVAL, status 38, for a smaller size.
 */
PLOOP_API int ploop_grow(const struct ploop_grow *grow, uint64_t *ret_size, struct ploop_error *err);

/* ---- Maintenance: what is being done to a device besides serving it ---- */

/* One at a time, with the names of the original. */
enum ploop_maintenance {
	PLOOP_MAINTENANCE_OFF,
	PLOOP_MAINTENANCE_BALLOON,  /* somebody changes the balloon */
	PLOOP_MAINTENANCE_FBLOADED, /* what the balloon covers is being given back */
	PLOOP_MAINTENANCE_SNAPSHOT, /* a new top is on its way */
	PLOOP_MAINTENANCE_TRACK,    /* the disk is being copied */
	PLOOP_MAINTENANCE_DISCARD,  /* the file system says what is free */
	PLOOP_MAINTENANCE_MERGE,
	PLOOP_MAINTENANCE_GROW,
	PLOOP_MAINTENANCE_RELOC,    /* images are being made shorter */
	PLOOP_MAINTENANCE_REPLACE,  /* an image gives way to another one */
};

PLOOP_API int ploop_maintenance(const struct ploop_which *which, enum ploop_maintenance *ret, struct ploop_error *err);

/* "OFF", "BALLOON", ... */
PLOOP_API const char *ploop_maintenance_name(enum ploop_maintenance state);

/*
 * ---- The balloon: a file inside that takes space from those who use the file system ----
 *
 * It is how a mounted disk becomes smaller. The blocks that it covers hold nothing, so the host gets them back.
 */

/* Whose balloon, and how. Zero it, fill in `which` and what shall differ from the default. */
struct ploop_balloon {
	struct ploop_which which;   /* beside a `device`, `target` says which of its file systems is meant */
	bool automount;             /* what is not mounted is mounted for the time, where nobody sees it */
	uint64_t bytes_a_second;    /* at most so many are moved in the images; 0: as fast as it goes */
	ploop_progress_fn progress; /* NULL: none */
	void *progress_data;
};

struct ploop_balloon_result {
	uint64_t old_size, new_size; /* bytes that the balloon takes */
	uint64_t clusters;           /* of the top's image that it covered: they are given back */
	uint64_t truncated;          /* bytes by which the image became shorter */
	uint32_t cluster;            /* bytes */
};

/* How many bytes it takes. */
PLOOP_API int ploop_balloon_size(const struct ploop_balloon *balloon, uint64_t *ret, struct ploop_error *err);

/*
 * Gives it `size` bytes in all (rounded up to blocks of the file system), and what it covers back to the host. Cut off anywhere
 * it has the old size or the new one, and ploop_balloon_repair() does the rest. -ENOSPC (status 20): it does not fit. -EBUSY:
 * somebody else changes it, or other maintenance is under way.
 */
PLOOP_API int ploop_balloon_change(const struct ploop_balloon *balloon, uint64_t size, struct ploop_balloon_result *ret,
				   struct ploop_error *err);

/* How many clusters it covers that were not given back: an interrupted change left them. */
PLOOP_API int ploop_balloon_check(const struct ploop_balloon *balloon, struct ploop_balloon_result *ret,
				  struct ploop_error *err);

/* Gives them back. */
PLOOP_API int ploop_balloon_repair(const struct ploop_balloon *balloon, struct ploop_balloon_result *ret,
				   struct ploop_error *err);

struct ploop_balloon_stat {
	uint64_t balloon; /* bytes that it takes */
	uint64_t data;    /* that the file system holds besides */
	uint64_t size;    /* of the disk */
	uint64_t images;  /* of the blocks of all images on the host */
};
PLOOP_API int ploop_balloon_stat(const struct ploop_balloon *balloon, struct ploop_balloon_stat *ret,
				 struct ploop_error *err);

/*
 * Waits for what goes on in the device though its client may be dead: FBLOADED and RELOC. *ret_state is what was found;
 * nothing happens in any other state.
 */
PLOOP_API int ploop_balloon_complete(const struct ploop_balloon *balloon, enum ploop_maintenance *ret_state,
				     struct ploop_balloon_result *ret, struct ploop_error *err);

/* ---- Replace: an image gives way to another one that holds the same ---- */

/* Zero it, fill in `which`, `image`, and `uuid`, `current` or neither. */
struct ploop_replace {
	struct ploop_which which; /* a device or a mount point; or a descriptor or its folder, as `image` */
	const char *uuid;         /* of the snapshot whose image it is; with a descriptor */
	const char *current;      /* the image that gives way; NULL with `uuid` NULL: that of `level` */
	unsigned level;           /* of the device; 0 is the base */
	const char *image;        /* the new one */
	const char *format;       /* "raw" or "ploop1": what both are; NULL: what the descriptor says, or ploop1 */
	bool keep_name;           /* the new one gets the name of the old one, which is gone then */
	bool no_compare;          /* believe that they hold the same */
	ploop_progress_fn progress; /* NULL: none. Stopped, nothing has changed */
	void *progress_data;
};

/*
 * Another file takes the place of an image, on a disk at rest or in use (then of an image that is only read). Both must be of one
 * size and hold the same: -EINVAL, status 11, when not. One name changes, in one step, so that no crash finds anything half done. The
 * old image stays as a file, but with `keep_name`.
 */
PLOOP_API int ploop_replace(const struct ploop_replace *what, struct ploop_error *err);

/* ---- Export: a disk for programs that speak NBD, without root and without a device ---- */

/* Zero it, fill in `files` and at least one of `socket` and `run`. */
struct ploop_export {
	const struct ploop_files *files;
	const char *socket;   /* the unix socket to listen on; NULL: one with a name of its own, for `run` */
	const char *run;      /* a command of the shell, which finds it in $uri: the export ends with it; NULL: none */
	const char *pid_file; /* go to the background, and write the number of the process there; NULL: stay */
	bool read_only;       /* no byte of any image is written. A snapshot is always so */
};

/*
 * Serves a disk: this process becomes nbdkit, with the plugin of ploop, which holds the locks of the images until it ends. Returns
 * only when that fails.
 */
PLOOP_API int ploop_export_nbd(const struct ploop_export *what, struct ploop_error *err);

/* ---- Space: a disk takes no more room on the host than its content ---- */

/* Zero it, fill in `which` and what shall differ from the default. */
struct ploop_reclaim {
	struct ploop_which which;   /* a device, a mount point, or a descriptor, its folder or an image, mounted or not */
	bool automount;             /* what is not mounted is mounted for the time, where nobody sees it */
	bool mounted_only;          /* -ENODEV when the file system is not mounted */
	bool no_trim;               /* do not ask the file system what is free: give back only what it discarded before */
	uint64_t min_block;         /* bytes: shorter free stretches are left out; 0: none is */
	uint64_t to_free;           /* bytes: enough when so many went back to the host; 0: all */
	uint64_t bytes_a_second;    /* at most so many are moved; 0: as fast as it goes, and requests have their half */
	unsigned timeout;           /* seconds: enough after them; 0: no limit */
	ploop_progress_fn progress; /* NULL: none */
	void *progress_data;
};

/* All images of the disk together, in bytes. */
struct ploop_reclaimed {
	uint64_t length_before, length;       /* of the files */
	uint64_t allocated_before, allocated; /* of the blocks that they hold on the host */
	uint64_t moved;                       /* that left the ends of files */
	uint32_t cluster;
	bool trimmed; /* the file system told what is free */
	bool enough;  /* it ended early: to_free, or timeout */
};

/*
 * Gives back to the host what a disk does not need: the file system inside says what is free, the images release that, move what
 * lies at their ends into the gaps, and become shorter. While the disk is used, or not mounted: then what is free is read from
 * an ext file system that was unmounted cleanly. -ECANCELED: stopped by `progress`; like after any failure, what was gained is
 * gained, and doing it again goes on.
 */
PLOOP_API int ploop_reclaim(const struct ploop_reclaim *reclaim, struct ploop_reclaimed *ret, struct ploop_error *err);

/* Writes nothing and says what ploop_reclaim() would come to now: length and allocated as they would be. Looks at the top only. */
PLOOP_API int ploop_reclaim_estimate(const struct ploop_reclaim *reclaim, struct ploop_reclaimed *ret,
				     struct ploop_error *err);

/* ---- Convert: the images of a disk in another form ---- */

/* Zero it, fill in `disk` and at least one of `format` and `version`. */
struct ploop_convert {
	const char *disk;    /* a descriptor or its folder; the disk is not mounted */
	const char *format;  /* "expanded" (also "ploop1"), "preallocated" or "raw"; NULL: as it is */
	unsigned version;    /* of ploop1 images: 1 or 2; 0: as it is */
	bool no_verify;      /* do not read back and compare what was written */
	ploop_progress_fn progress; /* NULL: none */
	void *progress_data;
};

/*
 * Gives the images of a disk another form, where they are. `format` is about the base, and `version` about all images; snapshots
 * stay what they are, and what would hide them is refused. Whatever is interrupted when, the disk is the old or the new one.
 * Needs room for the images that change once more, unless the file system can share blocks. Not an error when there is
 * nothing to do.
 */
PLOOP_API int ploop_convert(const struct ploop_convert *what, struct ploop_error *err);

/* Zero it, fill in `source` and `image`. */
struct ploop_convert_output {
	const struct ploop_files *source; /* a disk, or one raw file (format "raw"), or one qcow2 file */
	const char *image;   /* the file to make */
	const char *format;  /* "expanded" (also "ploop1"), "preallocated", "raw" or "qcow2"; NULL: by the name of `image` */
	unsigned version;    /* of a ploop1 image: 1 or 2; 0: as the source, else 2 */
	bool snapshots;      /* qcow2: a file for each snapshot, backed by the one below */
	bool no_verify;      /* do not read back and compare what was written */
	ploop_progress_fn progress; /* NULL: none */
	void *progress_data;
};

/*
 * Writes what a disk, a snapshot or a foreign file holds to a new file. It has its name when it is whole, durable and compared
 * with the source. An image of ploop gets a descriptor when its folder has none. A snapshot can be read beside the running
 * disk, the disk itself only while it is not mounted. qcow2 is read by way of qemu-img.
 */
PLOOP_API int ploop_convert_output(const struct ploop_convert_output *what, struct ploop_error *err);

/* ---- Copy: a disk in use to another file or another machine ---- */

/* What ploop_copy_send() does. Zero it, fill in `source`, where it goes, and what shall differ from the default. */
struct ploop_copy {
	const char *source;       /* "/dev/ploop0" */
	/* Where the copy goes, one of three. */
	const char *target;       /* a new file; with `all`, a new folder */
	const char *via;          /* a shell command that is the receiving half: its input is the stream, its output the feedback */
	int stream;               /* a descriptor to write the stream to, when `target` and `via` are NULL */
	int feedback;             /* of `stream`: a descriptor on which the receiver answers; -1: none */
	const char *stop_command; /* run by the shell when little is left: it stops what writes to the disk; NULL: none */
	bool all;                 /* the descriptor and all images that it names; else the top alone */
	bool flat;                /* one image of all levels; else the top alone */
	bool compat;              /* `stream` and `via`: the original's stream */
	bool compress;            /* by zstd; not with `compat` */
	bool resume;              /* what the receiving side has already is not sent again */
	bool no_freeze;           /* leave mounted file systems alone: the copy is as after a crash */
	uint32_t max_downtime_ms; /* stop when what is left takes no longer; 0: 200 */
	uint32_t max_passes;      /* before the last one; 0: 20 */
	uint64_t bytes_a_second;  /* until the last pass; 0: as fast as it goes */
	ploop_progress_fn progress; /* NULL: none */
	void *progress_data;
};

struct ploop_copy_report {
	unsigned passes;         /* with the last */
	uint64_t bytes;          /* read from the source, without holes */
	uint64_t last_bytes;     /* of these, in the last pass: the device stood still meanwhile */
	uint64_t elapsed_ns;
	uint64_t downtime_ns;    /* from the beginning of the stop command until the device went on */
	uint64_t stop_ns;        /* of that, the stop command itself */
	bool converged;          /* what was left got small; else it did not get any smaller */
};

/*
 * Copies a device while it is used: pass after pass what has changed since the last one, until little is left; then it runs
 * the stop command, freezes the file systems, makes the device stand still, sends the rest, and lets all go on. The source
 * is not changed. A target file or folder appears when it is complete and durable, and not before.
 * -EBUSY, status 17, when other long work is under way on the device. `ret` may be NULL.
 */
PLOOP_API int ploop_copy_send(const struct ploop_copy *copy, struct ploop_copy_report *ret, struct ploop_error *err);

/* The receiving half. Zero it, fill in `target` and the descriptors. */
struct ploop_copy_receive {
	const char *target; /* a new file; a new folder when a whole disk comes */
	int stream;         /* a pipe or socket */
	int feedback;       /* a descriptor to answer on; -1: none */
	bool resume;        /* go on with what a copy that broke off has left, and leave it when this one breaks off */
	ploop_progress_fn progress; /* NULL: none */
	void *progress_data;
};

/* Takes a stream of ours or of the original. -EPROTO, status 13, for one that is damaged: no file is left of it. */
PLOOP_API int ploop_copy_receive(const struct ploop_copy_receive *receive, struct ploop_error *err);

/* ---- Incremental backup ---- */

struct ploop_backup {
	const char *disk;         /* a device, or a descriptor, its folder or an image, mounted or not */
	const char *since;        /* UUID of a backup, or its file: only what has changed since; NULL: all */
	const char *output;       /* the new file, which has its name when it is whole and durable; NULL: */
	int stream;               /* a descriptor to write to */
	bool compress;            /* by zstd */
	bool no_freeze;           /* leave mounted file systems alone: the backup is as after a crash */
	uint64_t bytes_a_second;  /* until the last pass; 0: as fast as it goes */
	ploop_progress_fn progress; /* NULL: none */
	void *progress_data;
};

struct ploop_backup_report {
	char uuid[PLOOP_UUID];  /* of this backup: what the next one is made since */
	char since[PLOOP_UUID]; /* "": it is a full one */
	bool tracked;           /* there is a dirty bitmap for the next one; not so when the image is raw */
	unsigned passes;
	uint64_t bytes;         /* read from the disk, without holes */
	uint64_t elapsed_ns;
	uint64_t downtime_ns;   /* the device stood still */
};

/*
 * Writes what a disk holds, or what has changed in it since an earlier backup, at one moment; and from that moment on notes what
 * changes in a dirty bitmap with the UUID of this backup. The bitmap of `since` is dropped when the new backup is durable, and not
 * before. Status 44 when there is none of that UUID: then a full backup is due. `ret` may be NULL.
 */
PLOOP_API int ploop_backup(const struct ploop_backup *backup, struct ploop_backup_report *ret, struct ploop_error *err);

struct ploop_backup_restore {
	const char *const *backups; /* files: a full one, and then the increments in their order */
	size_t nbackups;
	const char *target;         /* the new folder of the disk, with a descriptor and one image */
	ploop_progress_fn progress; /* NULL: none */
	void *progress_data;
};

/* Makes a new disk of backups. -EPROTO, status 13, for a damaged one; the folder is there when all of it is, and durable. */
PLOOP_API int ploop_backup_restore(const struct ploop_backup_restore *restore, struct ploop_error *err);

struct ploop_bitmap {
	char uuid[PLOOP_UUID];
	uint64_t granularity; /* bytes that a bit stands for */
	uint64_t dirty;       /* bytes that it calls changed */
};

/* The dirty bitmaps of a disk, which is named as that of a backup, and its size. The caller frees the list with free(). */
PLOOP_API int ploop_bitmaps(const char *disk, struct ploop_bitmap **ret, size_t *ret_n, uint64_t *ret_size,
			    struct ploop_error *err);

struct ploop_stretch {
	uint64_t offset, length; /* bytes of the disk */
};

/* What one of them calls changed, in order. The caller frees the list with free(). */
PLOOP_API int ploop_bitmap_read(const char *disk, const char *uuid, struct ploop_stretch **ret, size_t *ret_n,
				struct ploop_error *err);

/* Begins a bitmap, with this UUID or (NULL) a new one: what changes from now on is in it. */
PLOOP_API int ploop_bitmap_start(const char *disk, const char *uuid, char ret[PLOOP_UUID], struct ploop_error *err);
/* Drops one; NULL: all. */
PLOOP_API int ploop_bitmap_drop(const char *disk, const char *uuid, struct ploop_error *err);

#ifdef __cplusplus
}
#endif

#endif
