/* The numbers that parts must agree on. A build with -DRW_TINY makes them small, so that corners happen all the time. */
#ifndef RW_LIMITS_H
#define RW_LIMITS_H

#include <stdint.h>

#define RW_BLOCK_SIZE 4096u                  /* unit of direct I/O and of addresses in the data file, bytes */
#define RW_PAGE_SIZE_MIN 4096u
#define RW_PAGE_SIZE_MAX 65536u
#define RW_BUCKET_PREFIX 4u                  /* bytes of bucket id in front of every stored key */
#define RW_WORKERS_MAX 64u
#define RW_PARTITIONS_MAX 256u
#define RW_PARTITIONS_FEW 32u
#define RW_IO_DEPTH 128u                     /* operations in flight on one ring */

#ifdef RW_TINY
#define RW_SEGMENT_BYTES (128u << 10)        /* of the data file: unit of allocation and cleaning */
#define RW_LOG_SEGMENT_BYTES (128u << 10)    /* of the log: unit of preallocation and recycling */
#define RW_LOG_STAGING_BYTES (64u << 10)     /* power of two */
#define RW_LOG_FRAGMENT_BYTES (8u << 10)     /* a longer record is cut in fragments of at most this */
#define RW_WRITE_BATCH_BYTES (64u << 10)     /* staging of one write-back batch; at least one page of the largest size */
#define RW_CACHE_BYTES_MIN (1u << 20)
#define RW_PARTITION_BYTES_DEFAULT (128u << 10)
#define RW_PARTITION_BYTES_FEW (128u << 10)  /* as long as there are fewer than RW_PARTITIONS_FEW, unless told otherwise */
#define RW_KEY_FILTER_SHARE 2048u            /* of the cache, at most */
#define RW_KEY_FILTER_BYTES_MIN 1024u        /* a smaller one is not worth making: in the smallest cache there is none */
#define RW_KEY_FILTER_BITS 24u               /* for each key, at least: with fewer it is emptied and made anew */
#define RW_KEY_FILTER_SAMPLE 1u              /* of so many keys one is counted, and of so many absent ones one asks for the filter */
#define RW_KEY_FILTER_RETRY_NS 1000000u      /* after a walk that met a leaf on disk, or too many keys; doubled each time */
#define RW_RECORDS_LATCHES 1u                /* of records of leaves on disk; power of two, and the fewest frames that they take */
#define RW_SCATTERED_PAGES_MIN 8u            /* dead among a partition's pages, for it to be written again to win them */
#define RW_RECORDS_WINDOW 64u                /* gets and puts of leaves on disk between two looks at how many frames records are worth */
#else
#define RW_SEGMENT_BYTES (1u << 20)
#define RW_LOG_SEGMENT_BYTES (8u << 20)
#define RW_LOG_STAGING_BYTES (2u << 20)
#define RW_LOG_FRAGMENT_BYTES (64u << 10)
#define RW_WRITE_BATCH_BYTES (512u << 10)
#define RW_CACHE_BYTES_MIN (1u << 20)
#define RW_PARTITION_BYTES_DEFAULT (32u << 20)
#define RW_PARTITION_BYTES_FEW (2u << 20)
#define RW_KEY_FILTER_SHARE 64u
#define RW_KEY_FILTER_BYTES_MIN 4096u
#define RW_KEY_FILTER_BITS 6u
#define RW_KEY_FILTER_SAMPLE 64u
#define RW_KEY_FILTER_RETRY_NS 100000000u
#define RW_RECORDS_LATCHES 64u
#define RW_SCATTERED_PAGES_MIN 64u
#define RW_RECORDS_WINDOW 4096u
#endif

_Static_assert(RW_SEGMENT_BYTES % RW_PAGE_SIZE_MAX == 0, "a segment holds whole pages");
_Static_assert(RW_LOG_STAGING_BYTES >= 4 * RW_LOG_FRAGMENT_BYTES, "several fragments fit the staging space");
_Static_assert(RW_WRITE_BATCH_BYTES >= RW_PAGE_SIZE_MAX, "a batch holds a page of any size");
_Static_assert(RW_SEGMENT_BYTES >= RW_WRITE_BATCH_BYTES, "a batch fits a segment");

/* The longest key of a user, bytes, for a page size: so that two fences and one record always fit a page. */
static inline uint32_t rw_limits_key_max(uint32_t page_size)
{
    return page_size / 4 - 24;
}

#endif
