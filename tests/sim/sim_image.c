#include "tests/sim/sim_image.h"

#include <stdlib.h>

#include "base/base.h"

struct sim_chunk {
    uint32_t references;
    unsigned char bytes[SIM_CHUNK_BYTES];
};

void *sim_allocate(size_t bytes)
{
    void *p = calloc(1, bytes);
    RW_ASSERT(p != NULL);
    return p;
}

void *sim_reallocate(void *old, size_t bytes)
{
    void *p = realloc(old, bytes);
    RW_ASSERT(p != NULL);
    return p;
}

static void chunk_release(sim_chunk *chunk)
{
    if (chunk != NULL && --chunk->references == 0) free(chunk);
}

void sim_image_free(sim_image *image)
{
    for (size_t i = 0; i < image->count; i++) chunk_release(image->chunks[i]);
    free(image->chunks);
    *image = (sim_image){0};
}

void sim_image_copy(sim_image *to, const sim_image *from)
{
    *to = (sim_image){.size = from->size};
    if (from->count == 0) return;
    to->chunks = sim_allocate(from->count * sizeof *to->chunks);
    to->count = from->count;
    for (size_t i = 0; i < from->count; i++) {
        to->chunks[i] = from->chunks[i];
        if (to->chunks[i] != NULL) to->chunks[i]->references++;
    }
}

static void image_reserve(sim_image *image, size_t count)
{
    if (count <= image->count) return;
    size_t grown = RW_MAX(count, image->count + image->count / 2);
    image->chunks = sim_reallocate(image->chunks, grown * sizeof *image->chunks);
    memset(image->chunks + image->count, 0, (grown - image->count) * sizeof *image->chunks);
    image->count = grown;
}

/* The chunk, made the image's own. */
static sim_chunk *image_own(sim_image *image, size_t index)
{
    image_reserve(image, index + 1);
    sim_chunk *chunk = image->chunks[index];
    if (chunk != NULL && chunk->references == 1) return chunk;
    sim_chunk *own;
    if (chunk == NULL) {
        own = sim_allocate(sizeof *own);
    } else {
        own = malloc(sizeof *own);
        RW_ASSERT(own != NULL);
        memcpy(own->bytes, chunk->bytes, SIM_CHUNK_BYTES);
        chunk->references--;
    }
    own->references = 1;
    image->chunks[index] = own;
    return own;
}

void sim_image_read(const sim_image *image, uint64_t offset, void *buffer, size_t length)
{
    unsigned char *to = buffer;
    while (length > 0) {
        size_t index = (size_t)(offset / SIM_CHUNK_BYTES), within = (size_t)(offset % SIM_CHUNK_BYTES);
        size_t piece = RW_MIN(length, SIM_CHUNK_BYTES - within);
        const sim_chunk *chunk = index < image->count ? image->chunks[index] : NULL;
        if (chunk != NULL) memcpy(to, chunk->bytes + within, piece);
        else memset(to, 0, piece);
        to += piece, offset += piece, length -= piece;
    }
}

void sim_image_write(sim_image *image, uint64_t offset, const void *buffer, size_t length)
{
    const unsigned char *from = buffer;
    while (length > 0) {
        size_t index = (size_t)(offset / SIM_CHUNK_BYTES), within = (size_t)(offset % SIM_CHUNK_BYTES);
        size_t piece = RW_MIN(length, SIM_CHUNK_BYTES - within);
        memcpy(image_own(image, index)->bytes + within, from, piece);
        from += piece, offset += piece, length -= piece;
    }
}

void sim_image_flip(sim_image *image, uint64_t offset, unsigned bit)
{
    RW_ASSERT(bit < 8);
    image_own(image, (size_t)(offset / SIM_CHUNK_BYTES))->bytes[offset % SIM_CHUNK_BYTES] ^= (unsigned char)(1u << bit);
}

void sim_image_trim(sim_image *image, uint64_t size)
{
    size_t keep = (size_t)((size + SIM_CHUNK_BYTES - 1) / SIM_CHUNK_BYTES), within = (size_t)(size % SIM_CHUNK_BYTES);
    for (size_t i = keep; i < image->count; i++) {
        chunk_release(image->chunks[i]);
        image->chunks[i] = NULL;
    }
    if (within != 0 && keep <= image->count && image->chunks[keep - 1] != NULL) {
        memset(image_own(image, keep - 1)->bytes + within, 0, SIM_CHUNK_BYTES - within);
    }
}
