/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Descriptors: what is accepted, what is refused and with which words, what edits leave behind. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <ploop/ploop.h>

#include "image/descriptor.h"
#include "image/tree.h"

#define PARAMETERS                                                                                                   \
	"<Disk_Parameters><Disk_size>20971520</Disk_size><Cylinders>40960</Cylinders><Heads>16</Heads><Sectors>32</" \
	"Sectors>"                                                                                                   \
	"<Padding>0</Padding></Disk_Parameters>"
#define STORAGE(body)                                                                               \
	"<StorageData><Storage><Start>0</Start><End>20971520</End><Blocksize>2048</Blocksize>" body \
	"</Storage></StorageData>"
#define G(n) "{11111111-aaaa-4bbb-8ccc-00000000000" n "}"
#define IMAGE(guid, file) "<Image><GUID>" guid "</GUID><Type>Compressed</Type><File>" file "</File></Image>"
#define PLAIN(guid, file) "<Image><GUID>" guid "</GUID><Type>Plain</Type><File>" file "</File></Image>"
#define SHOT(guid, parent, more) "<Shot><GUID>" guid "</GUID><ParentGUID>" parent "</ParentGUID>" more "</Shot>"
#define SNAPSHOTS(top, body) "<Snapshots><TopGUID>" top "</TopGUID>" body "</Snapshots>"
#define DISK(body) "<?xml version=\"1.0\"?><Parallels_disk_image>" body "</Parallels_disk_image>"
#define ONE_IMAGE STORAGE(IMAGE(GUID_TOP, "root.hds"))
#define ONE_SHOT SNAPSHOTS(GUID_TOP, SHOT(GUID_TOP, GUID_NONE, ""))

/* Base 1, temporary 2 on it, 3 and the top on 2. */
#define TREE                                                                                                        \
	DISK(PARAMETERS STORAGE(IMAGE(G("1"), "root.hds") IMAGE(G("2"), "root.hds.2") IMAGE(GUID_TOP, "root.hds.f") \
					IMAGE(G("3"), "/else/where.hds"))                                           \
		     SNAPSHOTS(GUID_TOP, SHOT(G("1"), GUID_NONE, "") SHOT(G("2"), G("1"), "<Temporary/>")           \
						 SHOT(GUID_TOP, G("2"), "") SHOT(G("3"), G("2"), "")))

static struct ploop_error error;

static int parse(const char *text, struct descriptor **ret)
{
	memset(&error, 0, sizeof(error));
	return descriptor_parse(text, strlen(text), "/disk/DiskDescriptor.xml", ret, &error);
}

static struct descriptor *parse_good(const char *text)
{
	struct descriptor *d;

	if (parse(text, &d) < 0)
		fail_msg("%s", error.text);
	return d;
}

static struct guid guid(const char *text)
{
	struct guid guid;

	assert_true(guid_parse(text, &guid));
	return guid;
}

static void test_fields(void **state)
{
	struct descriptor *d = parse_good(TREE);
	const struct snapshot *top = descriptor_top(d);
	char *path;

	(void)state;
	assert_int_equal(d->size, 20971520ull * 512);
	assert_int_equal(d->cluster, 1 << 20);
	assert_int_equal(d->mode, IMAGE_EXPANDED);
	assert_int_equal(d->nsnapshots, 4);
	assert_string_equal(top->file, "root.hds.f");
	assert_int_equal(d->snapshots[1].temporary, SNAPSHOT_TEMPORARY);
	assert_int_equal(d->snapshots[1].children, 2);
	path = descriptor_file(d, top);
	assert_string_equal(path, "/disk/root.hds.f");
	free(path);
	path = descriptor_file(d, &d->snapshots[3]);
	assert_string_equal(path, "/else/where.hds");
	free(path);
	descriptor_free(d);
}

static void test_chain(void **state)
{
	struct descriptor *d = parse_good(TREE);
	const struct snapshot *chain[TREE_MAX_DEPTH], *child;
	struct guid upper = guid("{11111111-AAAA-4BBB-8CCC-000000000003}");
	unsigned n = 0;

	(void)state;
	assert_int_equal(tree_chain(d, descriptor_top(d), chain, NULL), 3);
	assert_ptr_equal(chain[0], &d->snapshots[0]);
	assert_ptr_equal(chain[1], &d->snapshots[1]);
	assert_ptr_equal(chain[2], descriptor_top(d));
	assert_int_equal(tree_chain(d, &d->snapshots[0], chain, NULL), 1);
	assert_ptr_equal(descriptor_find(d, &upper), &d->snapshots[3]);
	tree_for_each_child (child, d, &d->snapshots[1])
		assert_ptr_equal(child, &d->snapshots[2 + n++]);
	assert_int_equal(n, 2);
	assert_true(tree_descends(d, descriptor_top(d), &d->snapshots[0]));
	assert_false(tree_descends(d, descriptor_top(d), &d->snapshots[3]));
	descriptor_free(d);
}

/* All of these are read. */
static void test_accepted(void **state)
{
	static const char *const texts[] = {
		DISK(PARAMETERS ONE_IMAGE ONE_SHOT),
		"<Virtuozzo_disk_image Version=\"1.0\">" PARAMETERS ONE_IMAGE ONE_SHOT "</Virtuozzo_disk_image>",
		/* no TopGUID, but the constant */
		DISK(PARAMETERS ONE_IMAGE "<Snapshots>" SHOT(GUID_TOP, GUID_NONE, "") "</Snapshots>"),
		/* no Shots at all, with and without the constant */
		DISK(PARAMETERS ONE_IMAGE "<Snapshots/>"),
		DISK(PARAMETERS STORAGE(IMAGE(G("1"), "root.hds")) "<Snapshots/>"),
		/* the old format: the top has a GUID of its own */
		DISK(PARAMETERS STORAGE(IMAGE(G("1"), "root.hds")) SNAPSHOTS(G("1"), SHOT(G("1"), GUID_NONE, ""))),
		/* case, white space, C's numbers */
		DISK("<Disk_Parameters><Disk_size> 0x1400000\n</Disk_size></Disk_Parameters>" ONE_IMAGE
		     "<Snapshots><TopGUID>\n{5FBAABE3-6958-40FF-92A7-860E329AAB41}\n</TopGUID>" SHOT(
			     GUID_TOP, GUID_NONE, "") "</Snapshots>"),
		/* a parent that is missing breaks only its own descendants */
		DISK(PARAMETERS STORAGE(IMAGE(GUID_TOP, "root.hds") IMAGE(G("2"), "b"))
			     SNAPSHOTS(GUID_TOP, SHOT(GUID_TOP, GUID_NONE, "") SHOT(G("2"), G("3"), ""))),
	};

	(void)state;
	for (unsigned i = 0; i < sizeof(texts) / sizeof(*texts); i++) {
		struct descriptor *d = parse_good(texts[i]);
		const struct snapshot *chain[TREE_MAX_DEPTH];

		assert_int_equal(d->size, 20971520ull * 512);
		assert_int_equal(tree_chain(d, descriptor_top(d), chain, NULL), 1);
		assert_string_equal(chain[0]->file, "root.hds");
		descriptor_free(d);
	}
}

#define REPLACED_PARAMETERS(size, more) \
	DISK("<Disk_Parameters><Disk_size>" size "</Disk_size>" more "</Disk_Parameters>" ONE_IMAGE ONE_SHOT)
#define REPLACED_STORAGE(body) DISK(PARAMETERS "<StorageData>" body "</StorageData>" ONE_SHOT)
#define REPLACED_CLUSTER(n) \
	REPLACED_STORAGE("<Storage><Start>0</Start><Blocksize>" n "</Blocksize>" IMAGE(GUID_TOP, "a") "</Storage>")
#define REPLACED_IMAGES(body) DISK(PARAMETERS STORAGE(body) ONE_SHOT)
#define REPLACED_SHOTS(body) DISK(PARAMETERS ONE_IMAGE body)

/* All of these are refused, with these words and status 39. */
static const struct {
	const char *text, *words;
} refused[] = {
	{ "", "Can't parse" },
	{ " ", "Can't parse" },
	{ "<a>", "Can't parse" },
	{ "not XML", "Can't parse" },
	{ "<a/><b/>", "Can't parse" },
	{ DISK(PARAMETERS ONE_IMAGE ONE_SHOT) "<", "Can't parse" },
	{ "<a/>", "'/Disk_Parameters' node not found" },
	{ DISK(ONE_IMAGE ONE_SHOT), "'/Disk_Parameters' node not found" },
	{ DISK("<Disk_Parameters/>" ONE_IMAGE ONE_SHOT), "'Disk_size' node not found" },
	{ DISK(PARAMETERS ONE_SHOT), "'/StorageData' node not found" },
	{ DISK(PARAMETERS ONE_IMAGE), "'/Snapshots' node not found" },
	{ REPLACED_PARAMETERS("0", ""), "<Disk_size> is 0" },
	{ REPLACED_PARAMETERS("", ""), "<Disk_size> is not a number" },
	{ REPLACED_PARAMETERS("-1", ""), "<Disk_size> is not a number" },
	{ REPLACED_PARAMETERS("12x", ""), "<Disk_size> is not a number" },
	{ REPLACED_PARAMETERS("0x", ""), "<Disk_size> is not a number" },
	{ REPLACED_PARAMETERS("18014398509481985", ""), "<Disk_size> is not a number" },
	{ REPLACED_PARAMETERS("99999999999999999999999", ""), "<Disk_size> is not a number" },
	{ REPLACED_PARAMETERS("8", "<Padding>1</Padding>"), "<Padding> is not 0" },
	{ REPLACED_PARAMETERS("8", "<Heads>x</Heads>"), "<Heads> is not a number" },
	{ REPLACED_PARAMETERS("8", "<Cylinders>4294967296</Cylinders>"), "<Cylinders> is not a number" },
	{ REPLACED_STORAGE(""), "'/StorageData/Storage' node not found" },
	{ REPLACED_STORAGE("<Storage/><Storage/>"), "splitted disk is not supported" },
	{ REPLACED_STORAGE("<Storage><Start>8</Start></Storage>"), "splitted disk is not supported" },
	{ REPLACED_STORAGE("<Storage/>"), "'Blocksize' node not found" },
	{ REPLACED_CLUSTER("0"), "Invalid block size 0" },
	{ REPLACED_CLUSTER("1"), "Invalid block size 1" },
	{ REPLACED_CLUSTER("32"), "Invalid block size 32" },
	{ REPLACED_CLUSTER("2047"), "Invalid block size 2047" },
	{ REPLACED_CLUSTER("262144"), "Invalid block size 262144" },
	{ REPLACED_CLUSTER("4294967296"), "Invalid block size 4294967296" },
	{ REPLACED_IMAGES(""), "No images found in /disk/DiskDescriptor.xml" },
	{ REPLACED_IMAGES("<Image/>"), "'GUID' node not found" },
	{ REPLACED_IMAGES("<Image><GUID>{5fbaabe3}</GUID></Image>"), "<GUID> is not a GUID" },
	{ REPLACED_IMAGES("<Image><GUID>" GUID_TOP "</GUID></Image>"), "'File' node not found" },
	{ REPLACED_IMAGES("<Image><GUID>" GUID_TOP "</GUID><File>a</File></Image>"), "'Type' node not found" },
	{ REPLACED_IMAGES("<Image><GUID>" GUID_TOP "</GUID><Type>Qcow</Type><File>a</File></Image>"),
	  "<Type> is neither" },
	{ REPLACED_IMAGES(IMAGE(GUID_TOP, "")), "<File> is empty" },
	{ REPLACED_IMAGES(IMAGE(GUID_TOP, "a&#10;b")), "control characters" },
	{ REPLACED_IMAGES("<Preallocated>1</Preallocated>" PLAIN(GUID_TOP, "a")),
	  "Preallocated is not compatible with Plain" },
	{ REPLACED_IMAGES("<Preallocated>2</Preallocated>" IMAGE(GUID_TOP, "a")), "<Preallocated> is not a number" },
	{ REPLACED_IMAGES(IMAGE(G("1"), "a")), "has no snapshot" },
	{ REPLACED_IMAGES(IMAGE(G("1"), "a") IMAGE(G("2"), "b")), "images(2) != snapshots(1)" },
	{ REPLACED_IMAGES(IMAGE(GUID_TOP, "a") IMAGE(G("1"), "b") IMAGE(G("2"), "c")), "images(3) != snapshots(1)" },
	{ REPLACED_IMAGES(IMAGE(GUID_TOP, "a") IMAGE(GUID_TOP, "b")), "images(2) != snapshots(1)" },
	{ DISK(PARAMETERS STORAGE(IMAGE(GUID_TOP, "a") IMAGE(GUID_TOP, "b"))
		       SNAPSHOTS(GUID_TOP, SHOT(GUID_TOP, GUID_NONE, "") SHOT(G("1"), GUID_NONE, ""))),
	  "has two images" },
	{ REPLACED_SHOTS("<Snapshots><Shot/></Snapshots>"), "'GUID' node not found" },
	{ REPLACED_SHOTS("<Snapshots><Shot><GUID>" GUID_TOP "</GUID></Shot></Snapshots>"),
	  "'ParentGUID' node not found" },
	{ REPLACED_SHOTS(SNAPSHOTS(GUID_TOP, SHOT(GUID_TOP, "nobody", ""))), "<ParentGUID> is not a GUID" },
	{ REPLACED_SHOTS(SNAPSHOTS("nobody", SHOT(GUID_TOP, GUID_NONE, ""))), "invalid top delta nobody" },
	{ REPLACED_SHOTS(SNAPSHOTS(G("1"), SHOT(GUID_TOP, GUID_NONE, ""))), "top delta " G("1") " is not found" },
	{ REPLACED_SHOTS(SNAPSHOTS(GUID_TOP, SHOT(GUID_TOP, GUID_NONE, "<Temporary/>"))),
	  "top delta " GUID_TOP " is temporary" },
	{ REPLACED_SHOTS(SNAPSHOTS(GUID_TOP, SHOT(GUID_TOP, GUID_TOP, ""))), "descends from itself" },
	{ DISK(PARAMETERS STORAGE(IMAGE(G("1"), "a")) "<Snapshots>" SHOT(G("1"), GUID_NONE, "") "</Snapshots>"),
	  "invalid top delta (there is no TopGUID)" },
	{ DISK(PARAMETERS STORAGE(IMAGE(GUID_TOP, "a") IMAGE(G("1"), "b") IMAGE(G("2"), "c")) SNAPSHOTS(
		  GUID_TOP, SHOT(GUID_TOP, G("1"), "") SHOT(G("1"), G("2"), "") SHOT(G("2"), G("1"), ""))),
	  "descends from itself" },
	{ DISK(PARAMETERS STORAGE(IMAGE(GUID_TOP, "a") IMAGE(G("1"), "b"))
		       SNAPSHOTS(GUID_TOP, SHOT(GUID_TOP, GUID_NONE, "") SHOT(GUID_TOP, GUID_NONE, ""))),
	  "there are two snapshots" },
	/* who brings a document type wants something else */
	{ "<!DOCTYPE a><a/>", "a document type is not accepted" },
	{ "<!DOCTYPE a SYSTEM \"file:///etc/passwd\"><a/>", "a document type is not accepted" },
	{ "<!DOCTYPE a [<!ENTITY x SYSTEM \"http://127.0.0.1:1/\">]><a>&x;</a>", "a document type is not accepted" },
	{ "<!DOCTYPE a [<!ENTITY x \"y\"><!ENTITY z \"&x;&x;&x;&x;\">]><a>&z;</a>", "a document type is not accepted" },
	{ "<a>&nobody;</a>", "Can't parse" },
};

static void test_refused(void **state)
{
	(void)state;
	for (unsigned i = 0; i < sizeof(refused) / sizeof(*refused); i++) {
		struct descriptor *d = NULL;

		if (parse(refused[i].text, &d) >= 0)
			fail_msg("accepted: %s", refused[i].text);
		if (!strstr(error.text, refused[i].words))
			fail_msg("'%s' is not in '%s'", refused[i].words, error.text);
		assert_null(strchr(error.text, '\n'));
		assert_int_equal(error.status, PLOOP_EXIT_DISKDESCR);
		assert_null(d);
	}
}

static void test_missing_parent(void **state)
{
	struct descriptor *d = parse_good(DISK(PARAMETERS ONE_IMAGE SNAPSHOTS(GUID_TOP, SHOT(GUID_TOP, G("1"), ""))));
	const struct snapshot *chain[TREE_MAX_DEPTH];

	(void)state;
	assert_int_equal(tree_chain(d, descriptor_top(d), chain, &error), -ENOENT);
	assert_int_equal(error.status, PLOOP_EXIT_DISKDESCR);
	assert_non_null(strstr(error.text, "has the parent " G("1") ", which is missing"));
	descriptor_free(d);
}

/* A raw base: the original labels what is above it Plain as well. */
static void test_plain(void **state)
{
	struct descriptor *d = parse_good(DISK(PARAMETERS STORAGE(PLAIN(G("1"), "a") PLAIN(GUID_TOP, "b")) SNAPSHOTS(
		GUID_TOP, SHOT(G("1"), GUID_NONE, "") SHOT(GUID_TOP, G("1"), ""))));

	(void)state;
	assert_int_equal(d->mode, IMAGE_RAW);
	assert_true(descriptor_raw(&d->snapshots[0]));
	assert_false(descriptor_raw(&d->snapshots[1]));
	descriptor_free(d);
}

static char *text_of(const struct descriptor *d)
{
	char *text;
	size_t len;

	assert_int_equal(descriptor_to_text(d, &text, &len), 0);
	assert_int_equal(strlen(text), len);
	return text;
}

static const char new_disk[] = "<?xml version=\"1.0\"?>\n"
			       "<Parallels_disk_image>\n"
			       "  <Disk_Parameters>\n"
			       "    <Disk_size>20971520</Disk_size>\n"
			       "    <Cylinders>40960</Cylinders>\n"
			       "    <Heads>16</Heads>\n"
			       "    <Sectors>32</Sectors>\n"
			       "    <Padding>0</Padding>\n"
			       "  </Disk_Parameters>\n"
			       "  <StorageData>\n"
			       "    <Storage>\n"
			       "      <Start>0</Start>\n"
			       "      <End>20971520</End>\n"
			       "      <Blocksize>2048</Blocksize>\n"
			       "      <Image>\n"
			       "        <GUID>{5fbaabe3-6958-40ff-92a7-860e329aab41}</GUID>\n"
			       "        <Type>Compressed</Type>\n"
			       "        <File>a &amp; b.hds</File>\n"
			       "      </Image>\n"
			       "    </Storage>\n"
			       "  </StorageData>\n"
			       "  <Snapshots>\n"
			       "    <TopGUID>{5fbaabe3-6958-40ff-92a7-860e329aab41}</TopGUID>\n"
			       "    <Shot>\n"
			       "      <GUID>{5fbaabe3-6958-40ff-92a7-860e329aab41}</GUID>\n"
			       "      <ParentGUID>{00000000-0000-0000-0000-000000000000}</ParentGUID>\n"
			       "    </Shot>\n"
			       "  </Snapshots>\n"
			       "</Parallels_disk_image>\n";

static void test_new(void **state)
{
	struct image_params params = { .size = 20971520ull * 512, .cluster = 1 << 20, .version = 2 };
	struct descriptor *d;
	char *text;

	(void)state;
	assert_int_equal(descriptor_new("/disk/DiskDescriptor.xml", "a & b.hds", &params, &d, NULL), 0);
	text = text_of(d);
	assert_string_equal(text, new_disk);
	free(text);
	descriptor_free(d);
	params.mode = IMAGE_PREALLOCATED;
	assert_int_equal(descriptor_new("/disk/DiskDescriptor.xml", "a", &params, &d, NULL), 0);
	assert_int_equal(d->mode, IMAGE_PREALLOCATED);
	text = text_of(d);
	assert_non_null(
		strstr(text, "<Blocksize>2048</Blocksize>\n      <Preallocated>1</Preallocated>\n      <Image>"));
	free(text);
	descriptor_free(d);
	assert_int_equal(descriptor_new("/disk/DiskDescriptor.xml", "a\n", &params, &d, NULL), -EINVAL);
	assert_int_equal(descriptor_new("/disk/DiskDescriptor.xml", "\xff", &params, &d, NULL), -EINVAL);
}

/* What others wrote survives, in its place. */
static void test_foreign(void **state)
{
	struct descriptor *d = parse_good(
		"<?xml version=\"1.0\" encoding=\"UTF-8\"?><!-- by hand --><Virtuozzo_disk_image Version=\"1.0\">"
		"<Disk_Parameters><Disk_size>20971520</Disk_size><LogicSectorSize>512</LogicSectorSize>"
		"<Padding>0</Padding><UID>{aaaaaaaa-0000-4000-8000-000000000001}</UID><Name>\xc3\xa4 "
		"&lt;disk&gt;</Name>"
		"<Miscellaneous><CompatLevel>level2</CompatLevel><Bootable>1</Bootable></Miscellaneous></"
		"Disk_Parameters>" ONE_IMAGE ONE_SHOT "</Virtuozzo_disk_image>");
	struct guid one = guid(G("1")), top = guid(GUID_TOP);
	char *text, *again;

	(void)state;
	assert_int_equal(descriptor_rename(d, &top, &one), 0);
	assert_int_equal(descriptor_add(d, &top, &one, "/disk/sub/new.hds"), 0);
	assert_int_equal(descriptor_set_top(d, &top), 0);
	text = text_of(d);
	assert_non_null(strstr(text, "<!-- by hand -->"));
	assert_non_null(strstr(text, "<Virtuozzo_disk_image Version=\"1.0\">"));
	assert_non_null(strstr(text, "</Disk_size>\n    <LogicSectorSize>512</LogicSectorSize>\n    <Padding>"));
	assert_non_null(strstr(text, "<Name>\xc3\xa4 &lt;disk&gt;</Name>"));
	assert_non_null(strstr(text, "<CompatLevel>level2</CompatLevel>"));
	assert_non_null(strstr(text, "<File>sub/new.hds</File>"));
	descriptor_free(d);
	d = parse_good(text);
	again = text_of(d);
	assert_string_equal(again, text);
	free(again);
	free(text);
	descriptor_free(d);
}

/* Every edit leaves in memory what reading its text would give. */
static void assert_same_as_text(const struct descriptor *d)
{
	char *text = text_of(d);
	struct descriptor *read = parse_good(text);

	assert_int_equal(d->nsnapshots, read->nsnapshots);
	assert_true(guid_equal(&d->top, &read->top));
	assert_int_equal(d->size, read->size);
	assert_int_equal(d->mode, read->mode);
	assert_int_equal(d->sectors, read->sectors);
	for (uint32_t i = 0; i < d->nsnapshots; i++) {
		const struct snapshot *a = &d->snapshots[i], *b = &read->snapshots[i];

		assert_string_equal(a->guid.text, b->guid.text);
		assert_string_equal(a->parent.text, b->parent.text);
		assert_string_equal(a->file, b->file);
		assert_int_equal(a->temporary, b->temporary);
		assert_int_equal(a->plain, b->plain);
		assert_int_equal(a->up, b->up);
		assert_int_equal(a->children, b->children);
	}
	descriptor_free(read);
	free(text);
}

static void test_edits(void **state)
{
	struct descriptor *d = parse_good(TREE);
	struct guid one = guid(G("1")), two = guid(G("2")), three = guid(G("3")), four = guid(G("4")),
		    five = guid(G("5")), nine = guid(G("9")), top = guid(GUID_TOP), none = guid(GUID_NONE);

	(void)state;
	assert_int_equal(descriptor_add(d, &two, &one, "x"), -EEXIST);
	assert_int_equal(descriptor_add(d, &four, &nine, "x"), -ENOENT);
	assert_int_equal(descriptor_add(d, &four, &three, "x\ny"), -EINVAL);
	assert_int_equal(descriptor_add(d, &four, &three, "/disk/x"), 0);
	assert_string_equal(descriptor_find(d, &four)->file, "x");
	assert_same_as_text(d);
	assert_int_equal(descriptor_set_parent(d, &one, &four), -EINVAL);
	assert_int_equal(descriptor_set_parent(d, &four, &four), -EINVAL);
	assert_int_equal(descriptor_set_parent(d, &four, &top), 0);
	assert_int_equal(descriptor_top(d)->children, 1);
	assert_same_as_text(d);
	assert_int_equal(descriptor_rename(d, &four, &one), -EEXIST);
	assert_int_equal(descriptor_rename(d, &four, &none), -EINVAL);
	/* from a GUID that lies in what changes */
	assert_int_equal(descriptor_rename(d, &d->top, &five), 0);
	assert_string_equal(d->top.text, G("5"));
	assert_string_equal(descriptor_find(d, &four)->parent.text, G("5"));
	assert_same_as_text(d);
	assert_int_equal(descriptor_set_temporary(d, &d->top, SNAPSHOT_TEMPORARY), -EINVAL);
	assert_int_equal(descriptor_set_temporary(d, &three, SNAPSHOT_TEMPORARY), 0);
	assert_int_equal(descriptor_set_top(d, &three), -EINVAL);
	assert_int_equal(descriptor_set_temporary(d, &two, SNAPSHOT_KEPT), 0);
	assert_same_as_text(d);
	assert_int_equal(descriptor_set_file(d, &two, "/disk2/root.hds"), 0);
	assert_string_equal(descriptor_find(d, &two)->file, "/disk2/root.hds");
	assert_int_equal(descriptor_set_size(d, 1ull << 40), 0);
	assert_int_equal(descriptor_set_size(d, 513), -EINVAL);
	assert_same_as_text(d);
	assert_int_equal(descriptor_set_mode(d, IMAGE_RAW), 0);
	assert_same_as_text(d);
	assert_int_equal(descriptor_set_mode(d, IMAGE_PREALLOCATED), 0);
	assert_same_as_text(d);
	assert_int_equal(descriptor_remove(d, &d->top), -EINVAL);
	assert_int_equal(descriptor_remove(d, &four), 0);
	assert_int_equal(descriptor_remove(d, &four), -ENOENT);
	assert_int_equal(d->nsnapshots, 4);
	assert_same_as_text(d);
	descriptor_free(d);
}

/* Sanitizers cost about ten times. */
#if defined(__SANITIZE_ADDRESS__) || defined(__clang__)
#define PATIENCE 10
#else
#define PATIENCE 1
#endif

/* Processor time of a parse that takes no longer than `limit` seconds: there is no room for a square. */
static int parse_quickly(const char *text, struct descriptor **ret, double limit)
{
	clock_t start = clock();
	int r = parse(text, ret);

	assert_true((double)(clock() - start) / CLOCKS_PER_SEC < limit * PATIENCE);
	return r;
}

/* A disk of `n` snapshots, each on the one before. */
static char *long_disk(unsigned n)
{
	char *text = NULL;
	size_t len = 0;
	FILE *file = open_memstream(&text, &len);

	fputs("<a>" PARAMETERS "<StorageData><Storage><Blocksize>2048</Blocksize>", file);
	for (unsigned i = 1; i <= n; i++)
		fprintf(file,
			"<Image><GUID>{%08x-0000-4000-8000-000000000000}</GUID><Type>Compressed</Type><File>%u</File></"
			"Image>",
			i, i);
	fprintf(file, "</Storage></StorageData><Snapshots><TopGUID>{%08x-0000-4000-8000-000000000000}</TopGUID>", n);
	for (unsigned i = n; i; i--) {
		fprintf(file, "<Shot><GUID>{%08x-0000-4000-8000-000000000000}</GUID>", i);
		fprintf(file, "<ParentGUID>{%08x-0000-%u000-%u000-000000000000}</ParentGUID></Shot>", i - 1,
			i > 1 ? 4 : 0, i > 1 ? 8 : 0);
	}
	fputs("</Snapshots></a>", file);
	fclose(file);
	return text;
}

static void test_many(void **state)
{
	char *text = long_disk(127);
	struct descriptor *d = parse_good(text);
	const struct snapshot *chain[TREE_MAX_DEPTH];

	(void)state;
	assert_int_equal(tree_chain(d, descriptor_top(d), chain, NULL), 127);
	assert_string_equal(chain[126]->file, "127");
	descriptor_free(d);
	free(text);

	text = long_disk(128);
	d = parse_good(text);
	assert_int_equal(tree_chain(d, descriptor_top(d), chain, &error), -E2BIG);
	assert_int_equal(error.status, PLOOP_EXIT_PARAM);
	descriptor_free(d);
	free(text);

	/* As many as are accepted, and a million. */
	text = long_disk(DESCRIPTOR_MAX_SNAPSHOTS);
	assert_int_equal(parse_quickly(text, &d, 1), 0);
	assert_int_equal(d->nsnapshots, DESCRIPTOR_MAX_SNAPSHOTS);
	descriptor_free(d);
	free(text);
	text = long_disk(1000000);
	assert_true(parse_quickly(text, &d, 0.5) < 0);
	assert_int_equal(error.status, PLOOP_EXIT_DISKDESCR);
	free(text);
}

/* A million empty elements, and a great depth. */
static void test_bulk(void **state)
{
	struct descriptor *d;
	char *text = NULL;
	size_t len = 0;
	FILE *file = open_memstream(&text, &len);

	(void)state;
	fputs("<a>", file);
	for (int i = 0; i < 1000000; i++)
		fputs("<Shot/>", file);
	fputs("</a>", file);
	fclose(file);
	assert_true(parse_quickly(text, &d, 1) < 0);
	free(text);
	file = open_memstream(&text, &len);
	for (int i = 0; i < 100000; i++)
		fputs("<a>", file);
	fclose(file);
	assert_true(parse_quickly(text, &d, 1) < 0);
	assert_int_equal(error.status, PLOOP_EXIT_DISKDESCR);
	free(text);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_fields),  cmocka_unit_test(test_chain),          cmocka_unit_test(test_accepted),
		cmocka_unit_test(test_refused), cmocka_unit_test(test_missing_parent), cmocka_unit_test(test_plain),
		cmocka_unit_test(test_new),     cmocka_unit_test(test_foreign),        cmocka_unit_test(test_edits),
		cmocka_unit_test(test_many),    cmocka_unit_test(test_bulk),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
