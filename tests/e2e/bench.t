#!/usr/bin/perl
# The verb bench: workloads, formats, existing records, mistakes.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/lib";
use Cwd qw(abs_path getcwd);
use JSON::PP;
use CliTest;
use Test::More;

my @small = ('--records=5000', '--ops=3000', '--threads=2', '--workers=1', '--cache=16M', '--seed=7');
my $command = abs_path($ringwood);
$ringwood = $command;
chdir $scratch or die $!;

sub bench { return run('', 'bench', @_) }
sub bench_json {
    my ($code, $out, $err) = bench(@_, '--format=json');
    is($code, 0, "@_") or diag($err);
    return eval { decode_json($out) } // {workloads => []};
}
sub leftovers { opendir my $dir, '.' or die $!; return join ' ', grep { /^ringwood-/ } readdir $dir }

# every workload, in one run
my @all = qw(fillseq fillrandom readrandom readmissing readseq scan overwrite mixed ycsb-a ycsb-b ycsb-c ycsb-d ycsb-e ycsb-f txn deleterandom readrandom readseq scan fillrandom readseq);
my $report = bench_json(@small, '--workloads=' . join(',', @all));
is(join(' ', map { $_->{workload} } @{$report->{workloads}}), "@all", 'all were run, in order');
is((grep { $_->{errors} } @{$report->{workloads}}), 0, 'without errors');
my @counts = map { $_->{operations} } @{$report->{workloads}};
is($counts[0], 5000, 'fillseq writes every record');
is($counts[2], 3000, '--ops is kept');
is($counts[4], 5000, 'readseq reads every record');
is($counts[15], 3000, 'deleterandom deletes --ops records');
cmp_ok($counts[17], '>=', 2000, 'readseq then reads what is left');
is($counts[20], 5000 + $counts[17] - 2000, 'and every record again after a fill, inserts included') or diag("@counts");
for my $workload (@{$report->{workloads}}) {
    my $l = $workload->{latency_us};
    my @ascending = map { $l->{$_} } qw(p50 p90 p99 p99.9 p99.99 max);
    is("@ascending", join(' ', sort { $a <=> $b } @ascending), "$workload->{workload}: percentiles ascend");
    cmp_ok($l->{max}, '>', 0, "$workload->{workload}: something was measured");
}
cmp_ok($report->{workloads}[0]{for_each_operation}{log_bytes}, '>', 100, 'a write costs at least its bytes in the log');
is($report->{settings}{workers}, 1, 'what is in effect is reported');
like($report->{settings}{log_sync}, qr/^(?:fdatasync|dsync)$/, 'how the log is made durable, too');
cmp_ok($report->{settings}{log_fdatasync_ns}, '>', 0, 'and what was measured for it');
like($report->{environment}{file_system}, qr/^\w+$/, 'so is the file system');
is(leftovers(), '', 'the directory of its own is gone');

# shapes of keys and values, batches, durability, threads of one workload
bench_json(@small, '--workloads=fillrandom,readrandom,scan,readseq,ycsb-e,readmissing', '--keys=hashed', '--key-size=31', '--value-size=0');
bench_json(@small, '--workloads=fillseq,readrandom,scan,readseq,overwrite,readmissing,deleterandom', '--key-size=4', '--value-size=3', '--batch=7');
bench_json(@small, '--records=50', '--ops=60', '--workloads=fillrandom,readrandom,readseq', '--value-size=100000');
for my $distribution (qw(uniform zipfian latest)) {
    $report = bench_json(@small, '--workloads=fillrandom,readrandom,overwrite,mixed', '--read-share=80', "--distribution=$distribution");
    is($report->{workloads}[1]{distribution}, $distribution, "reads are $distribution");
}
$report = bench_json(@small, '--ops=200', '--workloads=fillrandom,overwrite:sync:threads=3');
is($report->{workloads}[1]{durability}, 'sync', ':sync');
is($report->{workloads}[1]{threads}, 3, ':threads');
cmp_ok($report->{workloads}[1]{for_each_operation}{log_syncs}, '>', 0, 'a durable write costs syncs');
$report = bench_json(@small, '--workloads=fillrandom,readrandom', '--ops=1G', '--seconds=0.2', '--histogram');
cmp_ok($report->{workloads}[1]{seconds}, '<', 5, '--seconds ends it');
cmp_ok(scalar @{$report->{workloads}[1]{latency_distribution_us}}, '>', 10, '--histogram');

# the open loop, and each second
for my $workload ('readrandom', 'overwrite:sync', 'ycsb-f', 'scan', 'readmissing', 'deleterandom') {
    $report = bench_json(@small, "--workloads=fillrandom,$workload", '--ops=200', '--rate=400', '--series');
    my ($fill, $paced) = @{$report->{workloads}};
    is($fill->{loop}, 'closed', 'a fill runs as fast as it can');
    is($paced->{loop}, 'open', "$workload: open loop");
    cmp_ok($paced->{seconds}, '>', 0.4, '200 operations at 400 a second take half a second,');
    cmp_ok($paced->{seconds}, '<', 5, 'however long the machine stands still meanwhile');
    is($paced->{operations}, 200, 'and all are done');
    my $sum = 0;
    $sum += $_->{operations} for @{$paced->{series}};
    is($sum, 200, 'the seconds add up');
}
$report = bench_json(@small, '--workloads=fillrandom,overwrite:sync:threads=1', '--ops=1G', '--seconds=1.2', '--rate=1000000');
cmp_ok($report->{workloads}[1]{behind}, '>', 100000, 'what a rate that cannot be kept leaves undone is told');
cmp_ok($report->{workloads}[1]{latency_us}{p50}, '>', 100000, 'and in the latencies');
ok(!exists $report->{workloads}[1]{series}, 'without --series no seconds are kept');
$report = bench_json(@small, '--workloads=fillrandom,overwrite', '--batch=50', '--ops=500', '--rate=1000');
cmp_ok($report->{workloads}[1]{seconds}, '>', 0.4, 'the rate is that of operations, not of commits');
{
    my ($code, $out) = bench(@small, '--workloads=fillrandom,readrandom', '--rate=20000', '--series');
    is($code, 0, 'a table of it');
    like($out, qr/^loop +open: 20,000 operations a second.*^readrandom: each second\n +second +operations +p50 us.*^ +0 +[\d,]+ /ms, 'says so, and has the seconds');
    ($code, $out) = bench(@small, '--workloads=fillrandom', '--format=table');
    like($out, qr/^loop +closed/m, 'as does one of a closed loop');
    ($code, $out) = bench(@small, '--workloads=fillrandom,readrandom', '--series', '--format=csv');
    my ($rows, $seconds) = split /\n\n/, $out;
    like($seconds, qr/^workload,threads,durability,second,.*\nfillrandom,2,async,0,\d+,/, 'csv: seconds of all workloads');
}

# several operations of one thread under way together
my @together = qw(fillrandom readrandom overwrite mixed ycsb-a ycsb-b ycsb-c);
$report = bench_json(@small, '--cache=1M', '--ops=4001', '--in-flight=50', '--workloads=' . join(',', @together, 'scan', 'readseq', 'overwrite:sync'));
for my $i (1 .. 6, 9) {
    my $workload = $report->{workloads}[$i];
    is($workload->{operations}, 4001, "$workload->{workload}: all operations are done");
    is($workload->{in_flight}, 50, "$workload->{workload}: under way together");
    is($workload->{errors}, 0, "$workload->{workload}: with right answers");
}
ok(!exists $report->{workloads}[$_]{in_flight}, "$report->{workloads}[$_]{workload}: one after the other") for 0, 7, 8;
cmp_ok($report->{workloads}[9]{for_each_operation}{log_syncs}, '<', 0.5, 'durable ones under way together share syncs');
$report = bench_json(@small, '--workloads=fillrandom,ycsb-a', '--in-flight=32', '--ops=400', '--rate=800', '--series');
is($report->{workloads}[1]{operations}, 400, 'in an open loop');
cmp_ok($report->{workloads}[1]{seconds}, '>', 0.4, 'at the rate asked for');
$report = bench_json(@small, '--workloads=fillrandom,overwrite:sync', '--in-flight=2', '--ops=1G', '--seconds=1', '--rate=1000000');
cmp_ok($report->{workloads}[1]{behind}, '>', 100000, 'with as many under way as may be, others wait, and are told');
{
    my ($code, $out) = bench(@small, '--workloads=fillrandom,ycsb-a', '--in-flight=16');
    like($out, qr/^in flight +16 operations .*^fillrandom async +2 .*^ycsb-a q16 async +2 /ms, 'a table tells');
    ($code, $out) = bench(@small, '--workloads=fillrandom,ycsb-a', '--in-flight=16', '--format=csv');
    like($out, qr/,in_flight\nfillrandom,.*,0\nycsb-a,.*,16\n\z/, 'and csv');
}

# transactions: all modes, contended, the abort rate beside the throughput in every format
$report = bench_json('--records=100', '--ops=2000', '--threads=4', '--workers=1', '--cache=16M', '--distribution=zipfian',
                     '--workloads=fillrandom,txn,txn:serializable,txn:pessimistic,ycsb-f', '--txn-reads=3', '--txn-writes=4');
is(join(' ', map { $report->{workloads}[$_]{txn_mode} } 1 .. 3), 'snapshot serializable pessimistic', 'each mode is run');
for my $workload (@{$report->{workloads}}[1 .. 4]) {
    my $aborts = $workload->{conflicts} + $workload->{deadlocks} + $workload->{timeouts} + $workload->{snapshots_given_up};
    is($workload->{operations}, 2000, "$workload->{workload}: all were committed in the end");
    is($workload->{aborts}, $aborts, "$workload->{workload}: every abort has a reason");
}
for my $workload (@{$report->{workloads}}[1 .. 3]) {
    my $rate = $workload->{aborts} / ($workload->{aborts} + 2000);
    cmp_ok(abs($workload->{abort_rate} - $rate), '<', 1e-6, "$workload->{txn_mode}: the rate is that of all attempts");
}
ok(!exists $report->{workloads}[0]{abort_rate}, 'a workload without transactions has no abort rate');
is($report->{workloads}[3]{conflicts}, 0, 'a pessimistic transaction does not conflict');
$report = bench_json(@small, '--workloads=fillrandom,txn:threads=1', '--txn-mode=pessimistic', '--txn-writes=0');
is($report->{workloads}[1]{txn_mode}, 'pessimistic', '--txn-mode');
is($report->{workloads}[1]{txn_writes}, 0, '--txn-writes');
is($report->{workloads}[1]{aborts}, 0, 'one thread aborts nothing');
{
    my ($code, $out) = bench(@small, '--workloads=fillrandom,txn:serializable');
    is($code, 0, 'a table of transactions');
    like($out, qr/^workload +threads +operations +seconds +per second +aborted +p50 /m, 'has a column for aborts');
    like($out, qr/^txn serializable async +2 +3,000 +[\d.]+ +[\d,]+ +[\d.]+% +[\d.]+ /m, 'beside the throughput');
    ($code, $out) = bench(@small, '--workloads=fillrandom', '--format=table');
    unlike($out, qr/aborted/, 'which other tables do not have');
    ($code, $out) = bench(@small, '--workloads=fillrandom,txn:pessimistic', '--format=csv');
    my ($names, $fill, $txn) = map { [split /,(?=(?:[^"]*"[^"]*")*[^"]*$)/] } split /\n/, $out;
    my %row;
    @row{@$names} = @$txn;
    is($row{txn_mode}, 'pessimistic', 'csv: the mode');
    like($row{abort_rate}, qr/^0\.\d+$/, 'csv: the abort rate');
}

# the other formats
my ($code, $out, $err) = bench(@small, '--workloads=fillrandom,ycsb-a', '--histogram');
is($code, 0, 'table');
is($err, '', 'no progress where there is no terminal');
like($out, qr/^records +5,000, keys 16 B.*^cache .*^io .*^file system .*^kernel /ms, 'a head that says what was run on what');
like($out, qr/^fillrandom async +2 +5,000 .*^ycsb-a async .*^  reads .*^  updates /ms, 'a line for each workload, and for each kind of operation');
like($out, qr/^ycsb-a async: latency distribution$/m, 'the distribution');
($code, $out, $err) = bench(@small, '--workloads=fillrandom,readrandom', '--format=csv');
my @lines = split /\n/, $out;
is(@lines, 3, 'csv: a line for each workload') or diag($out);
is(scalar(split /,/, $lines[0]), scalar(split /,/, $lines[2]), 'with as many fields as the first line names');

# existing records
my $dir = "$scratch/kept";
bench_json($dir, @small, '--workloads=fillrandom,deleterandom');
($code, $out, $err) = bench($dir, @small, '--workloads=readrandom');
is($code, 2, 'a database is not used unasked');
like($err, qr/--use-existing/, 'and the way is shown');
$report = bench_json($dir, '--ops=1000', '--workers=1', '--workloads=readrandom,readseq,ycsb-d,readseq', '--use-existing');
is($report->{workloads}[1]{operations}, 2000, 'what was deleted stays deleted');
run('', 'del', $dir, '--bucket=ringwood-bench', 'dataset');
($code, $out, $err) = bench($dir, '--workloads=readrandom', '--use-existing');
is($code, 2, 'without the description of the records it refuses');

# a wrong answer: one record is deleted, one value is damaged behind the benchmark's back
$dir = "$scratch/wrong";
bench_json($dir, @small, '--workloads=fillseq');
run('', 'delete-range', $dir, '', '"\x00\x00\x00\x00\x00\x00\x01"');
($code, $out, $err) = bench($dir, '--workloads=readseq', '--use-existing', '--threads=1');
is($code, 1, 'a missing record fails the run');
like($err, qr/4999 records were read where 5000 exist/, 'and is named');
($code, $out, $err) = bench($dir, '--workloads=readrandom', '--ops=100000', '--use-existing', '--threads=1');
is($code, 1, 'so it does in gets');
like($err, qr/an existing record was not found/, 'and is named');
($code, $out, $err) = bench($dir, '--workloads=readrandom', '--ops=100000', '--use-existing', '--threads=1', '--in-flight=30');
is($code, 1, 'with several under way, too');
like($err, qr/an existing record was not found/, 'and is named');

# the standard job
($code, $out, $err) = bench(@small, '--ops=500', '--crash-rounds=2');
is($code, 0, 'the standard job') or diag($err);
like($out, qr/^Random writes: .* a second.*^Random reads: .* a second.*^Range scans: .* a second.*^Crash recovery test: PASSED\n\z/ms, 'ends with what it is known for');
is(leftovers(), '', 'and leaves nothing behind');

# mistakes
for my $mistake (['--records=0'], ['--records=abc'], ['--key-size=3'], ['--workloads=fastest'], ['--workloads=fillseq:fast'], ['--format=xml'],
                 ['--distribution=normal'], ['--set=nonsense=1'], ['--set=cache'], ['--cache=lots'], ['--read-share=101'], ['--seconds=-1'],
                 ['--rate=0'], ['--in-flight=0'], ['--in-flight=65537'], ['--in-flight=8', '--workloads=fillseq,scan'], ['--in-flight=8', '--batch=2', '--workloads=fillseq,overwrite'],
                 ['--rate=fast'], ['--use-existing'], ['a', 'b'], ['--nonsense'], ['--histogram', '--format=csv'], ['--txn-mode=readonly'],
                 ['--txn-reads=0', '--txn-writes=0', '--workloads=fillseq'], ['--workloads=fillseq:serializable'], ['--txn-reads=1001'], ['--keys=hashed', '--workloads=fillseq'],
                 ['--workloads=readrandom'], ['--key-size=8000', '--workloads=fillseq'], ['--key-size=4', '--records=100M', '--workloads=fillseq']) {
    ($code, $out, $err) = bench(@$mistake);
    is($code, 2, "@$mistake: refused");
    isnt($err, '', "@$mistake: explained");
}
is(leftovers(), '', 'mistakes leave nothing behind');
($code, $out, $err) = bench('--help');
is($code, 0, '--help');
like($out, qr/^usage: .*--workloads.*^  fillseq +/ms, 'lists options and workloads');

done_testing();
