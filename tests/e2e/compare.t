#!/usr/bin/perl
# The verb compare, with the two engines that are there wherever the tests run: all workloads, formats, the page, the open loop, mistakes, interruption.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/lib";
use Cwd qw(abs_path);
use File::Copy qw(copy);
use JSON::PP;
use List::Util qw(max min sum0);
use Time::HiRes qw(sleep);
use CliTest;
use Test::More;

my $command = abs_path($ringwood);
my $alone = "$scratch/ringwood";
(my $program = $command) =~ s{/[^/]+$}{/compare/ringwood-compare};
copy($command, $alone) or die "$alone: $!";
chmod 0755, $alone;
chdir $scratch or die $!;

# without the program that does it
$ringwood = $alone;
my ($code, $out, $err) = run('', 'compare');
is($code, 2, 'without ringwood-compare it is refused');
like($err, qr/^error: ringwood-compare is not beside .*make compare.*\n\z/, 'and said what makes it');
is(() = $err =~ /\n/g, 1, 'in one line');
copy($program, "$scratch/ringwood-compare") or die "$program: $!: make build/compare/ringwood-compare builds it";
chmod 0755, "$scratch/ringwood-compare";
($code, $out, $err) = run('', 'compare', '--help');
is($code, 0, 'installed in the same folder it is found');
unlink "$scratch/ringwood-compare";
$ringwood = $command;

my @two = ('--engines=ringwood,sqlite', '--records=3000', '--seconds=0.1', '--rounds=1', '--cache=32M', '--seed=7');
sub compare { return run('', 'compare', @_) }
sub compare_json {
    my ($code, $out, $err) = compare(@two, '--format=json', @_);
    is($code, 0, "@_") or diag($err);
    is($err, '', 'nothing to complain about, no progress where there is no terminal');
    return eval { decode_json($out) } // {sets => []};
}
sub leftovers { opendir my $dir, '.' or die $!; return join ' ', grep { /^ringwood-/ } readdir $dir }

# every workload of every set
my $report = compare_json('--set=cached,durable,large', '--threads=2');
like((grep { $_->{name} eq 'ringwood' } @{$report->{engines}})[0]{sync_way}, qr/^(?:fdatasync|dsync) \(measured: /, 'how the log was made durable');
is(join(' ', map { $_->{set} } @{$report->{sets}}), 'cached durable large', 'all sets');
is($report->{ratios_of}, 'ringwood', 'ratios are of ringwood');
is_deeply($report->{failures}, [], 'no failures');
my $only_read = 2 * grep { $_->{workload} =~ /^(get|get-zipf|absent|multi-get|scan|scan-full)$/ } map { @{$_->{workloads}} } @{$report->{sets}};
$only_read++; # get-queue, which one of the two can do
is($report->{disturbed_measurements} + $report->{undisturbed_measurements}, $only_read, 'whether the machine was quiet is told by what only reads');
like($report->{environment}{kernel}, qr/^Linux /, 'the environment is told');
is_deeply([map { $_->{name} } @{$report->{engines}}], ['ringwood', 'sqlite'], 'engines in order');
for my $engine (@{$report->{engines}}) {
    like($engine->{version}, qr/^\d+\.\d+\.\d+$/, "$engine->{name}: version");
    isnt($engine->{$_}, '', "$engine->{name}: $_") for qw(async durable memory read_modify_write multi_get in_flight);
}
my %seen;
for my $set (@{$report->{sets}}) {
    for my $workload (@{$set->{workloads}}) {
        my ($ours, $theirs) = @{$workload->{engines}};
        my $name = "$set->{set} $workload->{workload}";
        $seen{$name}++;
        for my $engine ($ours, $theirs) {
            my $l = $engine->{latency_us};
            my @ascending = map { $l->{$_} } qw(p50 p90 p99 p99.9 p99.99 max);
            is("@ascending", join(' ', sort { $a <=> $b } @ascending), "$name: $engine->{engine}: percentiles ascend");
            cmp_ok($engine->{operations_per_second}{median}, '>', 0, "$name: $engine->{engine}: something was done");
            cmp_ok($engine->{resident_bytes_max}, '>', 1 << 20, "$name: $engine->{engine}: memory was measured");
            cmp_ok($engine->{file_bytes}, '>', 3000 * 116, "$name: $engine->{engine}: so were the files");
        }
        my $ratio = $ours->{operations_per_second}{median} / $theirs->{operations_per_second}{median};
        cmp_ok(abs($theirs->{ratio}{median} / $ratio - 1), '<', 1e-6, "$name: the ratio is that of the rates");
        cmp_ok(abs($ours->{ratio}{median} - 1), '<', 1e-9, "$name: ringwood's own is 1");
    }
}
is($seen{'cached load'}, 1, 'the load is a workload');
ok(!$seen{'durable load'}, 'but not where it is not what is asked about');
ok($seen{$_}, $_) for ('cached ycsb-f', 'cached multi-get', 'cached scan-full', 'durable put', 'durable put-queue', 'large get-queue', 'large load-seq', 'large overwrite');
is_deeply($report->{sets}[2]{cache_not_limited}, ['sqlite'], 'who has no direct I/O is told');
my ($load) = grep { $_->{workload} eq 'load' } @{$report->{sets}[0]{workloads}};
is($_->{rounds}[0]{operations}, 3000, "$_->{engine}: a load writes every record once") for @{$load->{engines}};
cmp_ok($_->{written_per_byte_put}, '>', 0.5, "$_->{engine}: and at least its bytes") for @{$load->{engines}};
is(leftovers(), '', 'nothing is left behind');

# many under way: who has no such calls stands with what it did best with threads
for my $set (@{$report->{sets}}[1, 2]) {
    my ($queue) = grep { $_->{in_flight} > 0 } @{$set->{workloads}};
    my ($ours, $theirs) = @{$queue->{engines}};
    (my $name = $queue->{workload}) =~ s/-queue//;
    is($queue->{threads}, 1, "$queue->{workload}: in one thread, whatever --threads says");
    is($ours->{instead}, undef, "$queue->{workload}: ringwood itself");
    like($theirs->{instead}, qr/^$name:\d+$/, 'SQLite with threads');
    is(@{$theirs->{rounds}}, 0, 'and not by a round of its own');
    my @rates = map { $_->{engines}[1]{operations_per_second}{median} } grep { $_->{workload} eq $name } @{$set->{workloads}};
    cmp_ok(abs($theirs->{operations_per_second}{median} / max(@rates) - 1), '<', 1e-6, 'with the best that it did');
    is("$queue->{best_other}{engine} $queue->{best_other}{workload}", "sqlite $theirs->{instead}", 'the best of the others') if $set->{set} eq 'durable';
    is($queue->{best_other}, undef, 'of whom there is none without direct I/O') if $set->{set} eq 'large';
    cmp_ok($ours->{reads_per_op}, '<', 2, 'ringwood counts its reads');
    is($theirs->{reads_per_op}, undef, 'SQLite does not');
}

# the device itself
SKIP: {
    skip 'fio is not installed', 1 if system('sh', '-c', 'command -v fio > /dev/null') != 0;
    my $beside = compare_json('--engines=ringwood,fio', '--set=durable,large', '--workloads=put:1,put-queue,get');
    is(join(' ', map { $_->{name} } grep { $_->{yardstick} } @{$beside->{engines}}), 'fio', 'fio is told from engines');
    for my $set (@{$beside->{sets}}) {
        for my $workload (@{$set->{workloads}}) {
            my ($ours, $device) = @{$workload->{engines}};
            my $name = "$set->{set} $workload->{workload}:$workload->{threads}";
            if ($workload->{workload} eq 'put-queue') { is($device->{operations_per_second}, undef, "$name: fio has nothing beside it") }
            else { cmp_ok(abs($device->{ratio}{median} * $device->{operations_per_second}{median} / $ours->{operations_per_second}{median} - 1), '<', 1e-6, "$name: the ratio to fio") }
            is($workload->{best_other}, undef, "$name: fio is nobody's peer");
        }
    }
    is(leftovers(), '', 'nothing is left behind');
}

# a set made smaller
is(compare_json('--engines=sqlite', '--set=durable', '--workloads=put:1', '--records=100', '--scale=0.5')->{sets}[0]{records}, 100, 'what is given is not scaled');
{
    my ($code, $out, $err) = compare('--engines=sqlite', '--set=durable', '--workloads=put:1', '--scale=0.01', '--seconds=0.1', '--rounds=1', '--format=json');
    my $set = decode_json($out)->{sets}[0];
    is("$set->{records} $set->{cache_bytes}", '2000 ' . int((1 << 30) * 0.01 + 0.5), 'records and cache are');
}

# rounds: median, spread, ratios
$report = compare_json('--workloads=get:1,load', '--rounds=3');
is(join(' ', map { $_->{workload} } @{$report->{sets}[0]{workloads}}), 'load get', 'only what was asked for; the load comes first');
for my $engine (@{$report->{sets}[0]{workloads}[1]{engines}}) {
    my @rates = sort { $a <=> $b } map { $_->{operations_per_second} } @{$engine->{rounds}};
    is(scalar @rates, 3, "$engine->{engine}: three rounds");
    my %spread = %{$engine->{operations_per_second}};
    is(join(' ', map { sprintf '%.3f', $_ } @spread{qw(min median max)}), join(' ', map { sprintf '%.3f', $_ } @rates), 'least, median, most');
}
{
    my ($ours, $theirs) = @{$report->{sets}[0]{workloads}[1]{engines}};
    my @ratios = sort { $a <=> $b } map { $ours->{rounds}[$_]{operations_per_second} / $theirs->{rounds}[$_]{operations_per_second} } 0 .. 2;
    cmp_ok(abs($theirs->{ratio}{median} / $ratios[1] - 1), '<', 1e-6, 'the ratio is the median of those of the rounds');
    cmp_ok(abs($theirs->{ratio}{max} / $ratios[2] - 1), '<', 1e-6, 'and its spread is theirs');
}

# the open loop
$report = compare_json('--workloads=get:2,scan', '--rate=500', '--seconds=1.2');
for my $workload (@{$report->{sets}[0]{workloads}}) {
    for my $engine (@{$workload->{engines}}) {
        my $round = $engine->{rounds}[0];
        cmp_ok(abs($round->{operations} + $engine->{behind} - 600), '<=', 2, "$workload->{workload}: $engine->{engine}: what was due was begun, or is told as behind");
        is(sum0(map { $_->{operations} } @{$round->{series}}), $round->{operations}, 'the seconds add up');
        is(max(map { int($_->{max_us}) } @{$round->{series}}), int($engine->{latency_us}{max}), 'the longest is in one of them');
    }
}

# table, CSV, page
($code, $out, $err) = compare(@two, '--workloads=get:2,ycsb-a', "--report=$scratch/page.html", '--series');
is($code, 0, 'table') or diag($err);
like($out, qr/^  many under way +with threads/m, 'says who cannot have many under way');
like($out, qr/^rounds .*^loop +closed.*^file system .*^kernel .*^machine .*^ringwood 0.*^  async writes .*^SQLite 3.*^get:2 .*^ycsb-a:2 .*^cached: operations a second.*^cached: ringwood's rate divided/ms,
     'has a head, engines, workloads, rates and ratios');
unlike($out, qr/^load:1/m, 'a load that was not asked for is not shown');
($code, $out, $err) = compare(@two, '--set=durable', '--workloads=put,put-queue', "--report=$scratch/queue.html");
like($out, qr/^put-queue:1 .*\n.*\n  ringwood .*\n  SQLite .*\n +this is put:\d+: it has no calls/m, 'says with what an engine stands in for calls that it does not have');
like($out, qr/^put-queue:1 is [\d.]+ times the best of the others: SQLite with put:\d+,/m, 'and who comes nearest');
like(do { open my $file, '<:encoding(UTF-8)', "$scratch/queue.html" or die $!; local $/; <$file> }, qr/this is put:\d+: it has no calls/, 'the page says so too');
my $page = do { open my $file, '<:encoding(UTF-8)', "$scratch/page.html" or die $!; local $/; <$file> };
is(() = $page =~ /<svg/g, 8, 'the page has a curve and three series for each workload');
is(() = $page =~ /<svg/g, scalar(() = $page =~ m{</svg>}g), 'each whole');
unlike($page, qr/https?:|src=|<link|<script/, 'and needs nothing from outside');
unlike($page, qr/nan|inf\b/i, 'no coordinate is not a number');
my ($outside) = grep { $_->[0] < 0 || $_->[0] > 640 || $_->[1] < 0 || $_->[1] > 300 } map { [split /,/] } map { split ' ' } $page =~ /points="([^"]*)"/g;
ok(!$outside, 'and none lies outside its picture') or diag("@$outside");
($code, $out, $err) = compare(@two, '--workloads=get:1,scan', '--format=csv', '--series');
is($code, 0, 'csv');
my ($rows, $series) = split /\n\n/, $out;
my @rows = map { [split /,/, $_, -1] } split /\n/, $rows;
is(@rows, 5, 'a line for each workload and engine');
is(scalar @$_, scalar @{$rows[0]}, 'with as many fields as the first line names') for @rows;
like($series, qr/^set,workload,threads,engine,round,second,.*\ncached,get,1,ringwood,1,0,\d+,/, 'and one for each second');

# shapes, the other order
$report = compare_json('--engines=sqlite,ringwood', '--workloads=load,get:1,scan,scan-full,absent', '--key-size=31', '--value-size=3');
is($report->{sets}[0]{workloads}[0]{engines}[0]{engine}, 'sqlite', 'engines come in the order they are named');
$report = compare_json('--engines=sqlite', '--workloads=get:1');
is($report->{ratios_of}, 'sqlite', 'without ringwood, ratios are of the first');
mkdir "$scratch/elsewhere" or die $!;
compare_json('--workloads=get:1', "--dir=$scratch/elsewhere");
is(join(' ', glob("$scratch/elsewhere/*")), '', '--dir is used and left empty');

# an interruption: what was done is told, nothing is left
{
    my $pid = fork() // die $!;
    if ($pid == 0) {
        open STDOUT, '>', "$scratch/interrupted" or die $!;
        open STDERR, '>', "$scratch/interrupted.err" or die $!;
        exec { $command } $command, 'compare', '--engines=ringwood,sqlite', '--workloads=get:1', '--records=3000', '--seconds=60', '--cache=32M', '--seed=1' or die $!;
    }
    sleep 2;
    kill INT => $pid;
    waitpid $pid, 0;
    is($? >> 8, 130, 'interrupted');
    is(leftovers(), '', 'nothing is left behind');
    open my $file, '<', "$scratch/interrupted" or die $!;
    like(join('', <$file>), qr/^interrupted: /m, 'the report says so');
}

# mistakes
for my $mistake (['--scale=0'], ['--scale=5000'], ['--set=huge'], ['--set=cached,cached'], ['--workloads=fastest'], ['--workloads=put:1', '--set=cached'], ['--engines=oracle'], ['--engines=sqlite,sqlite'],
                 ['--rounds=0'], ['--rounds=32'], ['--records=0'], ['--key-size=7'], ['--seconds=0'], ['--rate=0'], ['--threads=257'], ['--format=xml'], ['--dir=/nowhere'],
                 ['--report=/nowhere/page.html'], ['--engines='], ['--cache=1K'], ['--nonsense'], ['more']) {
    ($code, $out, $err) = compare(@$mistake);
    is($code, 2, "@$mistake: refused");
    isnt($err, '', "@$mistake: explained");
}
is(leftovers(), '', 'mistakes leave nothing behind');
done_testing();
