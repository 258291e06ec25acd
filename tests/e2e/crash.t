#!/usr/bin/perl
# The verb crash: rounds, formats, mistakes. The judge itself is tested by test_bench_crash.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/lib";
use Cwd qw(abs_path);
use JSON::PP;
use CliTest;
use Test::More;

my $command = abs_path($ringwood);
$ringwood = $command;
chdir $scratch or die $!;
my $seed = $ARGV[0] // time % 1_000_000;
my $rounds = $ENV{CRASH_ROUNDS} // 20;

sub crash { return run('', 'crash', @_) }
sub leftovers { opendir my $dir, '.' or die $!; return join ' ', grep { /^ringwood-/ } readdir $dir }

my ($code, $out, $err) = crash("--rounds=$rounds", "--seed=$seed");
is($code, 0, "$rounds rounds") or diag("replay: crash.t $seed\n$err");
like($out, qr/^Crash recovery test: PASSED\n\z/m, 'passed');
like($out, qr/^  $rounds rounds, \d+ writers killed/m, 'says how many were killed');
unlike($out, qr/^  0 acknowledged/m, 'commits were acknowledged and found again');
is(leftovers(), '', 'its directory is gone');

for my $options (['--io-backend=psync'], ['--page-size=16K', '--workers=1']) {
    ($code, $out, $err) = crash('--rounds=3', "--seed=$seed", '--format=json', @$options);
    is($code, 0, "@$options") or diag("replay: crash.t $seed\n$err");
    my $result = eval { decode_json($out) } // {};
    ok($result->{passed}, "@$options: passed");
    is($result->{rounds}, 3, "@$options: all rounds");
    cmp_ok($result->{killed}, '>=', 1, "@$options: writers were killed");
}

my $dir = "$scratch/kept";
($code, $out, $err) = crash($dir, '--rounds=1', "--seed=$seed", '--format=csv');
is($code, 0, 'in a directory that was named');
is(scalar(split /\n/, $out), 2, 'csv');
ok(-d $dir, 'which is kept');
($code, $out, $err) = run('', 'verify', $dir);
is($code, 0, 'and sound');
($code, $out, $err) = crash($dir, '--rounds=1');
is($code, 2, 'a database that is there already is left alone');
like($err, qr/holds a database already/, 'and the reason given');

($code, $out, $err) = crash('--rounds=1000000', '--seconds-max=0.1');
is($code, 0, '--seconds-max');
for my $mistake (['--rounds=0'], ['--rounds=x'], ['--seconds-max=0'], ['--format=xml'], ['--set=nonsense=1'], ['--set=read_only=1'], ['a', 'b'], ['--nonsense']) {
    ($code, $out, $err) = crash(@$mistake);
    is($code, 2, "@$mistake: refused");
    isnt($err, '', "@$mistake: explained");
}
($code, $out, $err) = crash('--help');
is($code, 0, '--help');
like($out, qr/^usage: .*--rounds/ms, 'lists the options');
is(leftovers(), '', 'nothing is left behind');

done_testing();
