/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* xml.h - the little that descriptors need of XML: a careful parser, and elements by name. For descriptor*.c. */
#ifndef IMAGE_XML_H
#define IMAGE_XML_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <libxml/tree.h>

struct ploop_error;

/* Parses text of a stranger: no network, no document type and so no entities, no more than `max_tags` tags, no great
 * depth. White space between elements is dropped. Refuses with status 39 and `Can't parse PATH`. */
int xml_parse(const char *text, size_t len, unsigned max_tags, const char *path, xmlDoc **ret, struct ploop_error *err);

/* The first child element of that name, and the next one of the same name. NULL when there is none. */
xmlNode *xml_child(const xmlNode *parent, const char *name);
xmlNode *xml_next(const xmlNode *node);

/* The text inside an element. The caller frees with xmlFree(). NULL when there is no memory. */
char *xml_text(const xmlNode *node);

/* A number in C's spelling (0x.. and 0.. too), white space around it ignored. False for anything else. */
bool xml_number(const xmlNode *node, uint64_t *ret);

/* Sets the text of the child `name`, which is made after the child `after` (NULL: as the first) when it is not there.
 * False when there is no memory. */
bool xml_set_text(xmlNode *parent, const char *name, const char *after, const char *text);
bool xml_set_number(xmlNode *parent, const char *name, const char *after, uint64_t number);

/* Adds a last child with or without text. NULL when there is no memory. */
xmlNode *xml_add(xmlNode *parent, const char *name, const char *text);
void xml_remove(xmlNode *node);

/* Whether XML can hold this text: UTF-8 without control characters. */
bool xml_can_hold(const char *text);

#endif
