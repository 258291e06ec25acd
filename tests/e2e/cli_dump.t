#!/usr/bin/perl
# dump and load: everything comes back, and damage is named with its line.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/lib";
use CliTest;
use Test::More;

my $seed = $ARGV[0] // time;
srand $seed;
diag("replay: cli_dump.t $seed") if $ENV{TEST_VERBOSE};

sub hex_word { return '"' . join('', map { sprintf '\x%02x', ord } split //, shift) . '"' }
sub random_bytes { return join '', map { chr(rand() < 0.5 ? rand 256 : 32 + rand 95) } 1 .. shift }

my $from = fresh_database();
my $script = qq(bucket create logs\nbucket create "#odd \\tname\\xff"\nbucket create empty\nput user:1 {"name": "Alice"}\nput e ""\n);
for my $bucket ('logs', '"#odd \tname\xff"') {
    $script .= "bucket use $bucket\n";
    $script .= sprintf "put %s %s\n", hex_word(random_bytes(1 + int rand 40)), hex_word(random_bytes(int rand 300)) for 1 .. 700;
}
$script .= 'put big ' . ('x' x 300_000) . "\n";
my ($code, $out, $err) = shell($from, $script, '--async');
is($code, 0, 'the records are written') or diag("replay: cli_dump.t $seed\n$err");

($code, my $dump, $err) = run('', 'dump', $from);
is("$code$err", '0', 'dump');
like($dump, qr/\A#ringwood-dump 1\n/, 'begins with what it is');
like($dump, qr/^default\tuser:1\t\{"name": "Alice"\}$/m, 'text stays readable');
like($dump, qr/^default\te\t$/m, 'an empty value');
like($dump, qr/^empty$/m, 'a bucket without records');
like($dump, qr/^\\x23odd \\tname\\xff\t/m, 'a bucket with an odd name');
like($dump, qr/^#end 4 \d+\n\z/m, 'ends with the counts');
ok($dump !~ /[^\n\t\x20-\xff]/, 'no control bytes');

my $to = fresh_database();
($code, $out, $err) = run($dump, 'load', $to);
is("$code$err", '0', 'load');
like($out, qr/\A\d+ records in 4 buckets loaded\n\z/, 'tells how many');
my (undef, $again) = run('', 'dump', $to);
ok($again eq $dump, 'a dump of what was loaded is the same') or diag("replay: cli_dump.t $seed");
run('', 'dump', $to, "$scratch/dump.txt");
my $third = fresh_database();
($code) = run('', 'load', $third, "$scratch/dump.txt");
(undef, $again) = run('', 'dump', $third);
ok($code == 0 && $again eq $dump, 'the same by way of a file');
my (undef, $one) = run('', 'dump', $from, '--bucket=empty');
is($one, "#ringwood-dump 1\nempty\n#end 1 0\n", 'one bucket alone');
($code) = run('', 'verify', $to);
is($code, 0, 'what was loaded is sound');

my @damaged = (
    ['', 0, 'there is nothing to read'],
    ["hello\n", 1, 'no ringwood dump: it must begin with "#ringwood-dump 1"'],
    ["#ringwood-dump 2\n", 1, 'this version of the dump format is not known'],
    ["#ringwood-dump 1\ndefault\ndefault\ta\t1\n", 3, 'the input ends without an #end line: it was cut short'],
    ["#ringwood-dump 1\ndefault\ndefault\ta\n#end 1 1\n", 3, 'the value is missing: a record is bucket, key and value with tabs between'],
    ["#ringwood-dump 1\ndefault\ta\t1\tx\n", 2, 'the value: the byte 09 stands there without an escape'],
    ["#ringwood-dump 1\ndefault\ta\\q\t1\n", 2, 'the key: unknown escape \q: there are \n \t \" \\\\ and \xNN'],
    ["#ringwood-dump 1\ndefault\ta\t1\xff\n", 2, 'the value: the byte ff stands there without an escape'],
    ["#ringwood-dump 1\r\n", 1, 'no ringwood dump: it must begin with "#ringwood-dump 1"'],
    ["#ringwood-dump 1\n\n", 2, 'an empty line'],
    ["#ringwood-dump 1\n\ta\tb\n", 2, "the bucket's name is empty"],
    ["#ringwood-dump 1\n#frob\n", 2, 'a line that begins with # and is not the last'],
    ["#ringwood-dump 1\ndefault\n#end 1 1\n", 3, 'the counts do not fit: what came before makes "#end 1 0"'],
    ["#ringwood-dump 1\n#end 0 0\nx\n", 3, 'there is more behind the #end line'],
);
for my $case (@damaged) {
    my ($input, $line, $words) = @$case;
    ($code, $out, $err) = run($input, 'load', fresh_database());
    is("$code$out", '3', "refused: $words");
    like($err, qr/\Aerror: standard input, line $line: \Q$words\E\nerror: \d+ records? before that w(as|ere) loaded\n\z/, 'with the line');
}
($code, $out, $err) = run("#ringwood-dump 1\ndefault\t\t1\n", 'load', fresh_database());
is($code, 3, 'what the store refuses is damage of the input');
like($err, qr/\Aerror: standard input, line 2: /, 'with the line');

my $kept = fresh_database();
($code, $out, $err) = run("#ringwood-dump 1\ndefault\ta\t1\ndefault\tb\t2\noops\tx\n", 'load', $kept);
like($err, qr/^error: 2 records before that were loaded$/m, 'what was read before the damage is told');
(undef, $out) = run('', 'count', $kept);
is($out, "2\n", 'and kept');
($code, undef, $err) = run('', 'load', $kept, "$scratch/none");
ok($code == 3 && $err =~ /\Aerror: cannot open /, 'a file that is not there');
($code, undef, $err) = run('', 'dump', $kept, "$scratch/none/x");
ok($code == 3 && $err =~ /\Aerror: cannot create /, 'a file that cannot be made');

done_testing();
