#!/usr/bin/perl
# repair: of a damaged log all before the damage, of damaged pages all but their records, into a new database; what was lost is told, and nothing is wrong.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/lib";
use CliTest;
use IPC::Open2;
use Test::More;

my $block_size = 4096;
my @small = ('--workers=1', '--cache=16M');

sub read_file { open my $file, '<:raw', $_[0] or die "$_[0]: $!"; local $/; return <$file> }
sub key_of { return sprintf 'key%06d', shift }
sub value_of { return sprintf 'value of %06d %s', $_[0], 'x' x 60 }
sub puts { return join '', map { 'put ' . key_of($_) . ' ' . value_of($_) . "\n" } @_ }

# Overwrites bytes in the middle of a block.
sub damage {
    my ($path, $offset) = @_;
    open my $file, '+<:raw', $path or die "$path: $!";
    seek $file, $offset + 2000, 0;
    print $file 'damage' x 20;
    close $file or die $!;
}

# Bytes of all files, to see that nothing was changed.
sub state_of { my ($database) = @_; return join "\0", map { "$_ " . read_file("$database/$_") } qw(data log) }

# Writes, each line durable before the next, and ends the writer with a kill.
sub write_and_kill {
    my ($database, @numbers) = @_;
    my $pid = open2(my $out, my $in, $ringwood, 'shell', $database, @small);
    print $in puts(@numbers), "get $_\n" for key_of($numbers[-1]);
    $in->flush;
    while (defined(my $line = <$out>)) { last if $line =~ /value of/ }
    kill 'KILL', $pid;
    waitpid $pid, 0;
}

# The numbers of the records in a bucket; undef when a value is another key's.
sub numbers_in {
    my ($database, $bucket) = @_;
    my ($code, $out) = run('', 'scan', $database, '--format=csv', "--bucket=$bucket");
    my @numbers;
    for (grep { /^key\d/ } split /\n/, $out) {
        my ($number, $value) = /^key(\d{6}),(.*)$/ or return undef;
        return undef if $value ne value_of($number);
        push @numbers, $number + 0;
    }
    return $code == 0 ? \@numbers : undef;
}

# [offset, bytes] of each block of a file
sub blocks_of {
    my ($bytes) = @_;
    return map { [$_ * $block_size, substr $bytes, $_ * $block_size, $block_size] } 0 .. length($bytes) / $block_size - 1;
}

# [offset, bytes] of each block of the log that holds records of keys, in the log's order.
sub log_blocks {
    my ($database) = @_;
    my @blocks = grep { substr($_->[1], 0, 4) eq 'WLOG' && $_->[1] =~ /key\d{6}/ } blocks_of(read_file("$database/log"));
    return sort { $a->[2] <=> $b->[2] } map { [@$_, unpack('x24 Q<', $_->[1])] } @blocks;
}

# ---- nothing is damaged
my $sound = fresh_database();
my ($code, $out, $err) = shell($sound, puts(1 .. 3000) . 'put big ' . ('y' x 100_000) . "\nbucket create \"two words\"\nbucket create empty\nbucket use \"two words\"\n" . puts(5 .. 700), '--async');
is($code, 0, 'a database is written') or diag($err);
my $before = state_of($sound);
my $copy = fresh_database();
($code, $out, $err) = run('', 'repair', $sound, $copy, @small);
is("$code$err", '0', 'repair of what is sound');
is($out, qq(copied: bucket default: 3001 records\ncopied: bucket empty: 0 records\ncopied: bucket "two words": 696 records\nnothing was lost\n), 'tells what was copied');
ok(state_of($sound) eq $before, 'nothing was changed');
is((run('', 'dump', $copy))[1], (run('', 'dump', $sound))[1], 'all of it');
is((run('', 'verify', $copy))[0], 0, 'the copy is sound');

# ---- what is refused
($code, $out, $err) = run('', 'repair', $sound, $copy);
is("$code$out", '2', 'not into what is not empty');
like($err, qr/\Aerror: \Q$copy\E is not empty: /, 'it says so');
($code, undef, $err) = run('', 'repair', $sound, $sound);
is($code, 2, 'not into itself');
mkdir "$scratch/made";
is((run('', 'repair', $sound, "$scratch/made"))[0], 0, 'into an empty directory');
($code, undef, $err) = run('', 'repair', "$scratch/none", "$scratch/new");
ok($code == 3 && $err =~ /\Aerror: cannot open / && !-e "$scratch/new", 'a database that is not there, and no new one is made') or diag($err);
is((run('', 'repair', $sound, "$scratch/new", '--read-only'))[0], 2, 'not for reading only');
is((run('', 'repair', $sound))[0], 2, 'both directories are named');

# ---- a log that is damaged below what was durable
my $torn = fresh_database();
write_and_kill($torn, 1 .. 400);
my @blocks = log_blocks($torn);
cmp_ok(scalar @blocks, '>', 20, 'the log has many blocks');
my $middle = $blocks[@blocks / 2];
my ($first_lost) = $middle->[1] =~ /key(\d{6})/;
damage("$torn/log", $middle->[0]);
($code, undef, $err) = run('', 'count', $torn);
ok($code == 3 && $err =~ /damaged at LSN/, 'such a log is refused') or diag($err);
$before = state_of($torn);
my $saved = fresh_database();
($code, $out, $err) = run('', 'repair', $torn, $saved, @small);
is($code, 1, 'repair tells by its code that something was lost');
like($out, qr/^lost: the log from LSN \d+ on: .*damaged at LSN \d+/m, 'and where the log could not be read');
like($err, qr/\Aerror: \Q$torn\E is damaged: 1 loss; /, 'and how much');
is_deeply(numbers_in($saved, 'default'), [1 .. $first_lost - 1], 'all records before the damage are there, and they are right');
ok(state_of($torn) eq $before, 'nothing was changed');
is((run('', 'verify', $saved))[0], 0, 'what was saved is sound');
is((run('', 'put', $saved, 'more', '1'))[0], 0, 'and takes writes');

# the log ends below what the images hold: they are all that there is
my $emptied = fresh_database();
shell($emptied, puts(1 .. 1000), '--async');
write_and_kill($emptied, 1001 .. 1100);
truncate "$emptied/log", 0 or die $!;
($code, undef, $err) = run('', 'count', $emptied);
ok($code == 3 && $err =~ /must reach LSN/, 'a log that was emptied is refused') or diag($err);
$saved = fresh_database();
($code, $out, $err) = run('', 'repair', $emptied, $saved, @small);
is($code, 1, 'something was lost');
like($out, qr/^lost: the log from LSN \d+ on: /m, 'the log');
is_deeply(numbers_in($saved, 'default'), [1 .. 1000], 'all of the last checkpoint is there') or diag($out, $err);

# the log's file was cut inside of a segment in use: what is before the cut is there
my $cut = fresh_database();
shell($cut, puts(1 .. 1000), '--async');
write_and_kill($cut, 1001 .. 1100);
truncate "$cut/log", (-s "$cut/log") - 4096 or die $!;
($code, undef, $err) = run('', 'count', $cut);
ok($code == 3 && $err =~ /the file was cut/, 'a log that was cut is refused') or diag($err);
$saved = fresh_database();
($code, $out, $err) = run('', 'repair', $cut, $saved, @small);
is($code, 1, 'that may be a loss');
like($out, qr/^lost: the log from LSN \d+ on: .*the file was cut/m, 'of the log');
is_deeply(numbers_in($saved, 'default'), [1 .. 1100], 'all records are there, since only zeros were cut off') or diag($out, $err);

# ---- damaged pages
# the offsets of pages whose first key is one of the bucket's, with their records' numbers
sub leaves {
    my ($database) = @_;
    my @leaves = map { my ($offset, $page) = @$_; [$offset, sort { $a <=> $b } map { $_ + 0 } $page =~ /value of (\d{6})/g] } blocks_of(read_file("$database/data"));
    return sort { $a->[1] <=> $b->[1] } grep { @$_ > 1 } @leaves;
}

my $paged = fresh_database();
shell($paged, "bucket create b\nbucket use b\n" . puts(1 .. 3000), '--async');
my @leaves = leaves($paged);
cmp_ok(scalar @leaves, '>', 20, 'there are many leaves');
my ($offset, @gone) = @{$leaves[@leaves / 2]};
damage("$paged/data", $offset);
my %gone = map { $_ => 1 } @gone;
is((run('', 'count', $paged, '--bucket=b'))[0], 3, 'a damaged page is not read');
$saved = fresh_database();
($code, $out, $err) = run('', 'repair', $paged, $saved, @small);
is($code, 1, 'repair tells that something was lost');
is_deeply(numbers_in($saved, 'b'), [grep { !$gone{$_} } 1 .. 3000], 'all records but those of one page');
like($out, qr/^lost: bucket b: all between @{[key_of($gone[0] - 1)]} and @{[key_of($gone[-1] + 1)]}: /m, 'the gap is told');
like($out, qr/^copied: bucket b: @{[3000 - @gone]} records$/m, 'and what was copied');
is((run('', 'verify', $saved))[0], 0, 'what was saved is sound');

# two pages, with others between them
my ($second, @second_gone) = @{$leaves[@leaves / 2 + 3]};
damage("$paged/data", $second);
$saved = fresh_database();
($code, $out) = run('', 'repair', $paged, $saved, @small);
$gone{$_} = 1 for @second_gone;
is_deeply(numbers_in($saved, 'b'), [grep { !$gone{$_} } 1 .. 3000], 'two damaged pages: all but their records');
is(() = $out =~ /^lost: /mg, 2, 'two gaps');

# two neighbours, the first and the last page. The first holds the names of buckets
$second = $leaves[@leaves / 2 + 4];
damage("$paged/data", $_->[0]) for $second, $leaves[0], $leaves[-1];
$gone{$_} = 1 for map { @$_[1 .. $#$_] } $second, $leaves[0], $leaves[-1];
$saved = fresh_database();
($code, $out, $err) = run('', 'repair', $paged, $saved, @small);
is($code, 1, 'more damage');
like($out, qr/^lost: the names of buckets, /m, 'the names of buckets are lost');
is_deeply(numbers_in($saved, 'unnamed-2'), [grep { !$gone{$_} } 1 .. 3000], 'not what is in them') or diag($out, $err);
like($out, qr/^lost: bucket unnamed-2: all between the beginning and @{[key_of($leaves[1][1])]}: /m, 'a gap at the beginning');
like($out, qr/^lost: bucket unnamed-2: all between @{[key_of($second_gone[0] - 1)]} and @{[key_of($second->[-1] + 1)]}: /m, 'a gap of two pages');
like($out, qr/^lost: bucket unnamed-2: all between @{[key_of($leaves[-2][-1])]} and the end: /m, 'a gap at the end');

# a page that the log changes cannot be read
my $changed = fresh_database();
shell($changed, puts(1 .. 3000), '--async');
write_and_kill($changed, 3001 .. 3005);
@leaves = leaves($changed);
($offset, @gone) = @{$leaves[-1]};
damage("$changed/data", $offset);
$saved = fresh_database();
($code, $out, $err) = run('', 'repair', $changed, $saved, @small);
is($code, 1, 'the page that the log changes is damaged');
like($out, qr/^lost: 5 operations of the log, whose pages cannot be read: /m, 'that is told');
is_deeply(numbers_in($saved, 'default'), [1 .. $gone[0] - 1], 'the other pages are copied') or diag($out, $err);

# a root
my $rootless = fresh_database();
shell($rootless, puts(1 .. 5), '--async');
my ($root) = leaves($rootless);
damage("$rootless/data", $root->[0]);
$saved = fresh_database();
($code, $out, $err) = run('', 'repair', $rootless, $saved, @small);
is($code, 1, 'a partition whose root is damaged');
like($out, qr/^lost: the keys from the first to the last, but for what the log holds of them: /m, 'is told');
is_deeply(numbers_in($saved, 'default'), [], 'and is empty');

# a large value
my $large = fresh_database();
shell($large, puts(1 .. 10) . 'put key000005x ' . ('z' x 100_000) . "\n", '--async');
my $at = index read_file("$large/data"), 'z' x 5000;
damage("$large/data", $at + 20_000);
$saved = fresh_database();
($code, $out, $err) = run('', 'repair', $large, $saved, @small);
is($code, 1, 'a large value is damaged');
like($out, qr/^lost: bucket default: the value of key000005x: /m, 'that is told');
is_deeply(numbers_in($saved, 'default'), [1 .. 10], 'and all others are copied') or diag($out, $err);

done_testing();
