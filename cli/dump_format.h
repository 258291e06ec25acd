/*
 * The text that `ringwood dump` writes and `ringwood load` reads. Lines end in a newline; fields are separated by one tab and escaped
 * (text.h: field), so that no field holds a tab, a newline or a byte that is no text.
 *
 *   line               meaning
 *   #ringwood-dump 1   the first line: what this is, and the version of the format
 *   BUCKET             there is this bucket; also written for one without records
 *   BUCKET KEY VALUE   one record
 *   #end B R           the last line: B lines of one field and R records came before it; a dump without it was cut short
 *
 * A bucket name that begins with # has it written as \x23. A dump is valid if and only if every line is one of these, the first and the
 * last are where they belong, and the counts are right.
 */
#ifndef RW_CLI_DUMP_FORMAT_H
#define RW_CLI_DUMP_FORMAT_H

#define DUMP_HEADER "#ringwood-dump 1"
#define DUMP_HEADER_NAME "#ringwood-dump "
#define DUMP_END "#end "

#endif
