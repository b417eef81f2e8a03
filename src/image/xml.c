/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* xml.c - libxml2 kept on a short lead. */
#include "image/xml.h"

#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <libxml/parser.h>

#include "base/cleanup.h"
#include "base/error.h"

/* A document type is where bombs, files and hosts are named. It is refused at its first word, in whatever encoding. */
static void xml_refuse_doctype(void *context, const xmlChar *name, const xmlChar *external, const xmlChar *system)
{
	xmlParserCtxt *parser = context;

	(void)name;
	(void)external;
	(void)system;
	parser->_private = parser;
	xmlStopParser(parser);
}

static unsigned xml_count_tags(const char *text, size_t len, unsigned max)
{
	const char *end = text + len, *at = text;
	unsigned n = 0;

	while (n <= max && (at = memchr(at, '<', (size_t)(end - at)))) {
		at++;
		n++;
	}
	return n;
}

static int xml_refused(xmlParserCtxt *parser, const char *path, struct ploop_error *err)
{
	const xmlError *last = xmlCtxtGetLastError(parser);
	char text[256] = "it is empty";

	if (parser->_private)
		return error_set(err, -EINVAL, PLOOP_EXIT_DISKDESCR, "Can't parse %s: a document type is not accepted",
				 path);
	if (last && last->message)
		snprintf(text, sizeof(text), "line %d: %s", last->line, last->message);
	text[strcspn(text, "\n")] = 0;
	return error_set(err, -EINVAL, PLOOP_EXIT_DISKDESCR, "Can't parse %s: %s", path, text);
}

/* libxml2 prints what does not go to a parser of its own, such as errors of character sets. */
static void xml_silent(void *data, xmlError *error)
{
	(void)data;
	(void)error;
}

static xmlDoc *xml_read(xmlParserCtxt *parser, const char *text, size_t len)
{
	xmlStructuredErrorFunc old = xmlStructuredError;
	void *old_data = xmlStructuredErrorContext;
	xmlDoc *doc;

	xmlSetStructuredErrorFunc(NULL, xml_silent);
	doc = xmlCtxtReadMemory(parser, text, (int)len, NULL, NULL, XML_PARSE_NONET | XML_PARSE_NOBLANKS);
	xmlSetStructuredErrorFunc(old_data, old);
	return doc;
}

int xml_parse(const char *text, size_t len, unsigned max_tags, const char *path, xmlDoc **ret, struct ploop_error *err)
{
	xmlParserCtxt *parser;
	xmlDoc *doc;
	int r = 0;

	if (xml_count_tags(text, len, max_tags) > max_tags)
		return error_set(err, -E2BIG, PLOOP_EXIT_DISKDESCR, "Can't parse %s: more than %u tags", path,
				 max_tags);
	parser = xmlNewParserCtxt();
	if (!parser)
		return error_sys(err, -ENOMEM, PLOOP_EXIT_MALLOC, "%s", path);
	parser->sax->internalSubset = xml_refuse_doctype;
	doc = xml_read(parser, text, len);
	if (!doc || parser->_private || !xmlDocGetRootElement(doc)) {
		r = xml_refused(parser, path, err);
		xmlFreeDoc(doc);
	} else {
		*ret = doc;
	}
	xmlFreeParserCtxt(parser);
	return r;
}

static xmlNode *xml_from(xmlNode *node, const char *name)
{
	for (; node; node = node->next)
		if (node->type == XML_ELEMENT_NODE && !strcmp((const char *)node->name, name))
			return node;
	return NULL;
}

xmlNode *xml_child(const xmlNode *parent, const char *name)
{
	return xml_from(parent->children, name);
}

xmlNode *xml_next(const xmlNode *node)
{
	return xml_from(node->next, (const char *)node->name);
}

char *xml_text(const xmlNode *node)
{
	return (char *)xmlNodeGetContent(node);
}

bool xml_number(const xmlNode *node, uint64_t *ret)
{
	char *text = xml_text(node), *start = text, *end;
	bool good;

	if (!text)
		return false;
	while (isspace((unsigned char)*start))
		start++;
	/* strtoull() takes signs, and turns -1 into something huge. */
	good = isdigit((unsigned char)*start);
	if (good) {
		errno = 0;
		*ret = strtoull(start, &end, 0);
		while (isspace((unsigned char)*end))
			end++;
		good = !errno && !*end;
	}
	xmlFree(text);
	return good;
}

xmlNode *xml_add(xmlNode *parent, const char *name, const char *text)
{
	return xmlNewTextChild(parent, NULL, (const xmlChar *)name, (const xmlChar *)text);
}

void xml_remove(xmlNode *node)
{
	xmlUnlinkNode(node);
	xmlFreeNode(node);
}

static xmlNode *xml_insert(xmlNode *parent, const char *name, const char *after)
{
	xmlNode *node = xmlNewDocNode(parent->doc, NULL, (const xmlChar *)name, NULL);
	xmlNode *before = after ? xml_child(parent, after) : NULL;

	if (!node)
		return NULL;
	if (before)
		return xmlAddNextSibling(before, node);
	if (!after && parent->children)
		return xmlAddPrevSibling(parent->children, node);
	return xmlAddChild(parent, node);
}

bool xml_set_text(xmlNode *parent, const char *name, const char *after, const char *text)
{
	xmlNode *node = xml_child(parent, name), *content;

	if (!node)
		node = xml_insert(parent, name, after);
	if (!node)
		return false;
	content = xmlNewDocText(parent->doc, (const xmlChar *)text);
	if (!content)
		return false;
	xmlNodeSetContent(node, NULL);
	return xmlAddChild(node, content) != NULL;
}

bool xml_set_number(xmlNode *parent, const char *name, const char *after, uint64_t number)
{
	char text[32];

	snprintf(text, sizeof(text), "%" PRIu64, number);
	return xml_set_text(parent, name, after, text);
}

bool xml_can_hold(const char *text)
{
	for (const char *c = text; *c; c++)
		if ((unsigned char)*c < ' ')
			return false;
	return xmlCheckUTF8((const xmlChar *)text);
}
