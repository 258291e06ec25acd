/* Opens a database in the directory that the command line names, writes a value that is on the disk when rw_put returns, reads it back. */
#include <ringwood.h>
#include <stdio.h>

int main(int argc, char **argv)
{
    char buffer[100];
    size_t size = sizeof buffer;
    rw_db *db;
    rw_slice key = {"user:1", 6}, value = {"Alice", 5};
    int error = rw_open(argc > 1 ? argv[1] : "./mydb", NULL, &db);
    if (error == 0) error = rw_put(db, RW_DEFAULT_BUCKET, key, value, RW_SYNC);
    if (error == 0) error = rw_get(db, RW_DEFAULT_BUCKET, key, buffer, &size);
    if (error == 0) printf("%.*s\n", (int)size, buffer);
    if (error == 0) error = rw_close(db);
    if (error != 0) fprintf(stderr, "%s: %s\n", rw_strerror(error), rw_last_error(NULL));
    return error != 0;
}
