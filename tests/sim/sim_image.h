/* The bytes of a file: chunks shared between copies until one of them is written. Unwritten bytes read as zeros. */
#ifndef TESTS_SIM_IMAGE_H
#define TESTS_SIM_IMAGE_H

#include <stddef.h>
#include <stdint.h>

#define SIM_CHUNK_BYTES 16384u

typedef struct sim_chunk sim_chunk;

typedef struct {
    sim_chunk **chunks;   /* NULL: zeros */
    size_t count;
    uint64_t size;        /* of the file; chunks may hold bytes past it, until sim_image_trim */
} sim_image;

void sim_image_free(sim_image *image);
void sim_image_copy(sim_image *to, const sim_image *from);   /* to is uninitialised */
void sim_image_read(const sim_image *image, uint64_t offset, void *buffer, size_t length);
void sim_image_write(sim_image *image, uint64_t offset, const void *buffer, size_t length);   /* leaves the size */
void sim_image_flip(sim_image *image, uint64_t offset, unsigned bit);
/* Zeroes what lies at and past size. */
void sim_image_trim(sim_image *image, uint64_t size);

void *sim_allocate(size_t bytes);   /* zeroed; never NULL */
void *sim_reallocate(void *old, size_t bytes);

#endif
