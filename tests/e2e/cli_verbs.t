#!/usr/bin/perl
# The verbs: arguments, formats, exit codes.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/lib";
use CliTest;
use JSON::PP;
use Test::More;

sub verb_is {
    my ($name, $arguments, $code, $out, $err) = @_;
    my ($got_code, $got_out, $got_err) = run('', @$arguments);
    is($got_code, $code, "$name: exit code");
    is($got_out, $out, "$name: output") if defined $out;
    if (ref $err) { like($got_err, $err, "$name: errors") }
    else { is($got_err, $err // '', "$name: errors") }
}

my $db = fresh_database();
verb_is('get without a database', ['get', $db, 'a'], 3, '', qr/\Aerror: cannot open /);
ok(!-e $db, 'a verb that reads makes no database');
verb_is('put', ['put', $db, 'user:1', '{"name": "Alice"}', '--workers=1', '--cache', '16M'], 0, '');
verb_is('get', ['get', $db, 'user:1'], 0, qq({"name": "Alice"}\n));
verb_is('get as JSON', ['get', '--format=json', $db, 'user:1'], 0, qq({"key": "user:1", "value": "{\\"name\\": \\"Alice\\"}"}\n));
verb_is('get as CSV', ['get', '--format', 'csv', $db, 'user:1'], 0, qq(key,value\nuser:1,"{""name"": ""Alice""}"\n));
verb_is('get an absent key', ['get', $db, 'user:2'], 1, '', qr/\Aerror: get user:2: .+\n\z/);
verb_is('put what looks like an option', ['put', $db, '--async', '--', '--k', '--v'], 0, '');
verb_is('get what looks like an option', ['get', $db, '--', '--k'], 0, "--v\n");
verb_is('put with escapes', ['put', $db, 'z\xff\x00', '"tab\there"'], 0, '');
verb_is('a quoted value', ['get', $db, '"z\xff\x00"'], 0, qq("tab\\there"\n));
verb_is('a raw key', ['put', $db, 'a\b', '"q"', '--raw'], 0, '');
verb_is('a raw value', ['get', $db, 'a\b', '--raw'], 0, '"q"');
verb_is('the same key typed', ['get', $db, 'a\\\\b'], 0, qq("\\"q\\""\n));
{
    my $value = join '', map { chr($_ * 13 & 255) } 0 .. 70_000;
    my ($code) = run($value, 'put', $db, 'bin', '--stdin');
    is($code, 0, 'put --stdin');
    my (undef, $out) = run('', 'get', $db, 'bin', '--raw');
    ok($out eq $value, 'gives every byte back');
    (undef, $out) = run('', 'get', $db, 'bin', '--format=json');
    my $text = decode_json($out)->{value};
    utf8::encode($text);
    $text =~ s/\\x([0-9a-f]{2})/chr hex $1/ge;
    ok($text eq $value, 'also through JSON');
    run('', 'del', $db, 'bin');
}
verb_is('cas of an absent key', ['cas', $db, 'k', '-', 'one'], 0, '');
verb_is('cas of the expected value', ['cas', $db, 'k', 'one', '"two\x00"'], 0, '');
verb_is('cas of another value', ['cas', $db, 'k', 'one', 'three'], 1, '', qr/\Aerror: cas k: .+\n\z/);
verb_is('cas of a key that is there', ['cas', $db, 'k', '-', 'three'], 1, '', qr/\Aerror: cas k: .+\n\z/);
verb_is('what cas wrote', ['get', $db, 'k'], 0, qq("two\\x00"\n));
verb_is('cas to the value -', ['cas', $db, 'k', '"two\x00"', '"-"'], 0, '');
verb_is('cas that deletes', ['cas', $db, 'k', '-', '--raw', '-'], 1, '', qr/\Aerror: cas k: /);
verb_is('cas that deletes', ['cas', $db, 'k', '"-"', '-'], 0, '');
verb_is('what it deleted', ['get', $db, 'k'], 1, '', qr/not found/);
verb_is('add', ['add', $db, 'n', '41'], 0, "41\n");
verb_is('add again', ['add', $db, 'n', '-50'], 0, "-9\n");
verb_is('the counter', ['get', $db, 'n'], 0, qq("\\xf7\\xff\\xff\\xff\\xff\\xff\\xff\\xff"\n));
verb_is('add too much', ['add', $db, 'n', '-9223372036854775808'], 2, '', qr/\Aerror: add n: .+\n\z/);
verb_is('add to what is no counter', ['add', $db, 'user:1', '1'], 2, '', qr/\Aerror: add user:1: .+\n\z/);
verb_is('add what is no number', ['add', $db, 'n', '9223372036854775808'], 2, '', qq(error: add: "9223372036854775808" is not a whole number of 64 bits\n));
run('', 'del', $db, 'n');
verb_is('count', ['count', $db], 0, "4\n");
verb_is('count as JSON', ['count', $db, '--format=json'], 0, qq({"count": 4}\n));
verb_is('scan', ['scan', $db], 0, <<'OUT');
--k         --v
"a\\b"      "\"q\""
user:1      {"name": "Alice"}
"z\xff\x00" "tab\there"
OUT
verb_is('scan as JSON', ['scan', $db, 'u', '--format=json'], 0, <<'OUT');
[
{"key": "user:1", "value": "{\"name\": \"Alice\"}"},
{"key": "z\\xff\\x00", "value": "tab\there"}
]
OUT
verb_is('scan of nothing as JSON', ['scan', $db, 'b', 'c', '--format=json'], 0, "[]\n");
verb_is('scan with bounds', ['scan', $db, 'a', 'user:1', '--format=csv'], 0, qq(key,value\na\\b,"""q"""\n));
verb_is('scan in reverse', ['scan', $db, '', 'z', '--reverse', '--limit=1'], 0, qq(user:1 {"name": "Alice"}\n));
verb_is('scan backward', ['scan', $db, 'z', 'a'], 2, '', qr/the range ends before it begins/);
verb_is('prefix', ['prefix', $db, 'user:'], 0, qq(user:1 {"name": "Alice"}\n));
verb_is('first', ['first', $db, '--format=json'], 0, qq({"key": "--k", "value": "--v"}\n));
verb_is('last', ['last', $db], 0, qq("z\\xff\\x00" "tab\\there"\n));
verb_is('delete-range', ['delete-range', $db, 'b', ''], 0, '');
verb_is('count after it', ['count', $db], 0, "2\n");
verb_is('del', ['del', $db, '--', '--k'], 0, '');
verb_is('del an absent key', ['del', $db, 'nix'], 1, '', qr/\Aerror: del nix: /);

verb_is('bucket create', ['bucket', $db, 'create', 'logs'], 0, '');
verb_is('bucket create again', ['bucket', $db, 'create', 'logs'], 1, '', qr/there already/);
verb_is('put into a bucket', ['put', $db, 'k', 'logged', '--bucket=logs'], 0, '');
verb_is('get from a bucket', ['get', $db, 'k', '--bucket', 'logs'], 0, "logged\n");
verb_is('get from the other', ['get', $db, 'k'], 1, '', qr/error: /);
verb_is('an unknown bucket', ['put', $db, 'k', 'v', '--bucket=nix'], 1, '', qr/there is no bucket "nix"/);
verb_is('bucket list', ['bucket', $db, 'list', '--format=json'], 0, qq([\n{"bucket": "default"},\n{"bucket": "logs"}\n]\n));
verb_is('bucket drop', ['bucket', $db, 'drop', 'logs'], 0, '');
verb_is('bucket drop again', ['bucket', $db, 'drop', 'logs'], 1, '', qr/error: /);
verb_is('dropping the default bucket', ['bucket', $db, 'drop', 'default'], 2, '', qr/error: /);
verb_is('first with a setting', ['first', $db, '--bucket=default', '--set', 'log=8M'], 0);
verb_is('delete all', ['delete-range', $db, '', ''], 0, '');
verb_is('last of nothing', ['last', $db], 1, '', qr/not found/);

verb_is('checkpoint', ['checkpoint', $db], 0, '');
verb_is('compact', ['compact', $db], 0, '');
verb_is('verify', ['verify', $db], 0, "sound\n");
verb_is('verify as JSON', ['verify', $db, '--format=json'], 0, "[]\n");
verb_is('the log of nothing', ['log', "$scratch/none"], 3, '', qr/\Aerror: log .*none/);
{
    my $logged = "$scratch/logged";
    verb_is('a record for the log', ['put', $logged, 'of the log', "\"value \\x01\\xff\""], 0, '');
    verb_is('and its end', ['del', $logged, 'of the log'], 0, '');
    my ($code, $out, $err) = run('', 'log', $logged);
    ok($code == 0 && $err eq '' && $out =~ /^slot 0 at 0\n  block at 0: segment \d+ index 0, /, 'log: the first block');
    like($out, qr/^    record lsn \d+ to \d+, commit, body \d+ bytes\n        put key\(14\) \\00\\00\\00\\01of the log value\(8\) value \\01\\ff\n/m, 'log: a put, byte by byte');
    like($out, qr/^        delete key\(14\) \\00\\00\\00\\01of the log\n/m, 'log: a deletion behind it');
    verb_is('which changes nothing', ['verify', $logged], 0, "sound\n");
}
verb_is('verify of nothing', ['verify', "$scratch/none"], 3, '', qr/\Aerror: verify /);
{
    my ($code, $out) = run('', 'stat', $db, '--format=json', '--io-backend=psync');
    my $stat = $code == 0 ? decode_json($out) : {};
    is($stat->{page_size}, 4096, 'stat as JSON has the page size');
    is($stat->{io_backend}, 'psync', 'and the back end asked for');
    like($stat->{log_sync}, qr/^(?:fdatasync|dsync)$/, 'and how the log is made durable');
    cmp_ok($stat->{log_fdatasync_ns}, '>', 0, 'by what was measured');
    (undef, $out) = run('', 'stat', $db, '--set=log_sync=dsync');
    like($out, qr/^log_sync +dsync +how commits are made durable$/m, 'or what is asked for');
    my $other = fresh_database();
    run('', 'put', $other, 'a', '1', '--page-size=16K', '--workers=2');
    (undef, $out) = run('', 'stat', $other, '--format=csv', '--workers=2');
    my ($names, $values) = map { [split /,/] } split /\n/, $out;
    my %got;
    @got{@$names} = @$values;
    is($got{page_size}, 16384, 'the page size asked for, as CSV');
    is($got{workers}, 2, 'and the workers');
}
{
    my $damaged = fresh_database();
    shell($damaged, join('', map { "put key:$_ value-of-$_-\n" } 1000 .. 3000), '--async');
    open my $data, '+<:raw', "$damaged/data" or die "$damaged/data: $!";
    my $bytes = do { local $/; <$data> };
    my $at = rindex $bytes, 'value-of-2000-';
    ok($at > 0, 'a value is found in the data file');
    seek $data, $at, 0;
    print $data 'V';
    close $data;
    verb_is('verify of a damaged database', ['verify', $damaged], 1, undef, qr/\Aerror: \Q$damaged\E is damaged: \d+ findings?\n\z/);
    my ($code, $out) = run('', 'verify', $damaged, '--format=json');
    my $findings = decode_json($out);
    ok($code == 1 && @$findings > 0 && length $findings->[0]{finding}, 'its findings as JSON');
    verb_is('a read of what is damaged', ['get', $damaged, 'key:2000'], 3, '', qr/\Aerror: get key:2000: /);
}
verb_is('a read-only opening', ['put', $db, 'a', '1', '--read-only'], 3, '', qr/read-only/);

verb_is('no verb', [], 2, '', qr/^usage: ringwood VERB/);
verb_is('an unknown verb', ['frob'], 2, '', qr/no verb "frob"/);
verb_is('an unknown option', ['get', $db, 'a', '--frob'], 2, '', qr/unknown option --frob/);
verb_is('an option of another verb', ['get', $db, 'a', '--limit=3'], 2, '', qr/unknown option --limit/);
verb_is('an option without its value', ['get', $db, 'a', '--bucket'], 2, '', qr/--bucket needs a value/);
verb_is('a flag with a value', ['put', $db, 'a', 'b', '--async=1'], 2, '', qr/--async takes no value/);
verb_is('an unknown format', ['get', $db, 'a', '--format=xml'], 2, '', qr/table, json or csv/);
verb_is('an unknown setting', ['get', $db, 'a', '--set', 'frob=1'], 2, '', qr/\Aerror: --set frob=1: /);
verb_is('a setting without a value', ['get', $db, 'a', '--set', 'frob'], 2, '', qr/NAME=VALUE/);
verb_is('a bad size', ['get', $db, 'a', '--cache=lots'], 2, '', qr/\Aerror: --cache lots: /);
verb_is('too few arguments', ['get', $db], 2, '', qr/\Aerror: usage: ringwood get DIR KEY/);
verb_is('too many arguments', ['get', $db, 'a', 'b'], 2, '', qr/usage/);
verb_is('put without a value', ['put', $db, 'a'], 2, '', qr/--stdin/);
verb_is('an empty key', ['get', $db, ''], 2, '', qr/error: /);
verb_is('a key that is too long', ['put', $db, 'k' x 5000, 'v'], 2, '', qr/error: /);
verb_is('a bad escape', ['get', $db, 'a\q'], 2, '', qr/unknown escape \\q/);
verb_is('version', ['version'], 0, "ringwood 0.1.0\n");

for my $verb (qw(shell get put del scan prefix count first last delete-range bucket stat verify log repair checkpoint compact dump load bench crash version help)) {
    my ($code, $out, $err) = run('', $verb, '--help');
    ok($code == 0 && $out =~ /^usage: ringwood $verb\b/i && $err eq '', "$verb --help");
    my (undef, $overview) = run('', 'help');
    like($overview, qr/^  $verb +\S/m, "help lists $verb");
}
{
    my (undef, $one) = run('', 'help', 'scan');
    my (undef, $other) = run('', 'scan', '--help');
    is($one, $other, 'help VERB is VERB --help');
    my $large = fresh_database();
    shell($large, join('', map { sprintf "put %04d %s\n", $_, 'x' x 1000 } 0 .. 299), '--async');
    open my $pipe, '-|', $ringwood, 'scan', $large or die;
    is(getc $pipe, '0', 'a reader that goes away early');
    close $pipe;
    is($? >> 8, 3, 'ends the verb');
    verb_is('and leaves the database closed', ['verify', $large], 0, "sound\n");
    my $full = system(qq("$ringwood" help > /dev/full 2> "$scratch/full"));
    is($full >> 8, 3, 'output that cannot be written: exit code 3');
    $full = system(qq("$ringwood" scan "$large" > /dev/full 2> "$scratch/full"));
    is($full >> 8, 3, 'much output that cannot be written: exit code 3');
    open my $words, '<', "$scratch/full" or die $!;
    like(join('', <$words>), qr/\Aerror: cannot write the output\b.*\n\z/, 'and a line that says so');
    verb_is('an option that bench does not have', ['bench', '--frob'], 2, '', qr/\Aerror: --frob: no such option; --help lists them\n\z/);
    verb_is('an option of bench without its value', ['bench', '--records'], 2, '', qr/\Aerror: --records: the value is missing\n\z/);
}

done_testing();
