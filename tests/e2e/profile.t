#!/usr/bin/perl
# tools/profile, on a small workload: what it tells adds up. Where perf is missing or may record nothing, only its refusals.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/lib";
use Cwd qw(abs_path);
use List::Util qw(sum0);
use CliTest;
use Test::More;

my $tool = abs_path("$FindBin::Bin/../../tools/profile");
$ENV{RINGWOOD} = abs_path($ringwood);
$ENV{OUT} = "$scratch/profile";
$ringwood = $tool;

sub refused {
    my ($words, @arguments) = @_;
    my ($code, $out, $err) = run('', @arguments);
    is($code, 2, "@arguments: refused");
    like($err, $words, 'and explained');
}

refused(qr/'fastest' is not a workload.*readrandom/, 'fastest');
refused(qr/^error: usage/, '');
refused(qr/set by tools\/profile/, 'readrandom', '--workloads=scan');
refused(qr/'db' is not an option/, 'readrandom', 'db');

SKIP: {
    skip 'perf is not installed, or may not record here', 1 if system('sh', '-c', "perf record -q -o '$scratch/probe' -e cpu-clock true > /dev/null 2>&1") != 0;
    skip 'valgrind is not installed', 1 if system('sh', '-c', 'command -v valgrind > /dev/null') != 0;
    refused(qr/secnods/, 'readrandom', '--secnods=1');
    my ($code, $out, $err) = run('', 'overwrite:threads=1', '--records', '5k', '--seconds=0.4', '--cache=16M');
    is($code, 0, 'a profile') or diag($err);
    like($out, qr/^workload +overwrite:threads=1: \d+ operations, \d+ a second, 1 threads\nsamples +\d+ of /, 'says of what');
    for my $title ('user and kernel', 'threads', 'parts') {
        my ($table) = $out =~ /^\Q$title\E +share.*\n((?:  .*\n)+)/m;
        my @shares = ($table // '') =~ /(\d+\.\d) %/g;
        cmp_ok(abs(sum0(@shares) - 100), '<', 2, "$title: the shares are those of a whole") or diag($out);
    }
    like($out, qr/^  overwrite, 1 thread +\d/m, 'threads by name');
    like($out, qr/^  (btree|engine|wal) +\d/m, 'parts of the project');
    like($out, qr/^  (btree|engine|wal|libc) +\S+ +\d/m, 'symbols');
    like($out, qr/^  (rw_put +50000|instructions) +\d+\.\d$/m, 'instructions of an operation');
    ok(-s "$ENV{OUT}/perf.data", 'what was recorded is kept');
    ok(!-e "$ENV{OUT}/database", 'the database is not');
}
done_testing();
