#!/usr/bin/perl
# The order of the folders: that the sources keep it, and that the check would notice when they did not.
use strict;
use warnings;
use File::Path qw(make_path);
use File::Temp qw(tempdir);
use FindBin;
use Test::More;

my $check = "$FindBin::Bin/../../tools/check-layers";

sub check_layers {
    my ($root) = @_;
    my $out = `$check $root`;
    return ($? >> 8, $out);
}

my ($code, $out) = check_layers("$FindBin::Bin/../..");
is($code, 0, 'the sources keep to the layers') or diag($out);
is(() = $out =~ /^ok/mg, 11, 'all folders are looked at') or diag($out);

# a file, a line in it, and what the check must say of it; nothing: it is right
my @cases = (
    ['store/a.c', '#include "base/base.h"', ''],
    ['store/a.c', '#include "store/store_internal.h"', ''],
    ['store/a.c', '#include "wal/wal.h"', 'lies beside store'],
    ['store/a.c', '  #  include "engine/engine.h"', 'lies above store'],
    ['engine/a.c', '#include "store/store_internal.h"', 'is a private header of store'],
    ['engine/a.c', '#include "store/superblock_format.h"', ''],
    ['engine/a.c', '#include "trees.h"', 'is not written from the root'],
    ['engine/a.c', '#include "elsewhere/a.h"', 'lies in no known folder'],
    ['cli/a.c', '#include "bench/bench.h"', ''],
    ['bench/a.c', '#include "cli/cli.h"', 'lies above bench'],
    ['tests/unit/test_store_pages.c', '#include "store/store_internal.h"', ''],
    ['tests/unit/test_kernel_io.c', '#include "kernel_io/posix.h"', ''],
    ['tests/unit/test_storeroom.c', '#include "store/store_internal.h"', 'is a private header of store'],
    ['tests/api/test_store.c', '#include "store/store_internal.h"', 'is a private header of store'],
);
for my $case (@cases) {
    my ($path, $line, $want) = @$case;
    my $root = tempdir(CLEANUP => 1);
    my ($folder) = $path =~ m{^(.*)/};
    make_path("$root/$folder");
    open my $file, '>', "$root/$path" or die $!;
    print $file "/* a comment */\n$line\n";
    close $file;
    ($code, $out) = check_layers($root);
    if ($want eq '') { is($code, 0, "$path may: $line") or diag($out) }
    else { ok($code == 1 && $out =~ /\Q$path\E:2: .*\Q$want\E/, "$path may not: $line: it $want") or diag($out) }
}

done_testing();
