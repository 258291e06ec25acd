/* Opens a database, writes a record that is on the disk when rw_put returns, and reads it back. */
#include <ringwood.h>
#include <stdio.h>

int main(void)
{
    rw_db *db;
    char text[100];
    size_t size = sizeof text;
    rw_slice key = {"user:1", 6}, value = {"Alice", 5};
    int error = rw_open("mydb", NULL, &db);
    if (error == 0) error = rw_put(db, RW_DEFAULT_BUCKET, key, value, RW_SYNC);
    if (error == 0) error = rw_get(db, RW_DEFAULT_BUCKET, key, text, &size);
    if (error == 0) printf("%.*s\n", (int)size, text);
    if (error == 0) error = rw_close(db);
    if (error != 0) fprintf(stderr, "%s: %s\n", rw_strerror(error), rw_last_error(NULL));
    return error != 0;
}
