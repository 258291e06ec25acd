#!/usr/bin/perl
# Anomalies acted out by hand: several transactions in one shell, and what each mode lets through.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/lib";
use CliTest;
use Test::More;

# Runs lines in a fresh database. Returns their output without times, the errors, and the exit code.
sub session {
    my ($input, @options) = @_;
    my ($code, $out, $err) = shell(fresh_database(), $input, @options);
    return (without_times($out), $err, $code);
}

# two transactions that each read what the other writes
sub write_skew {
    my ($mode, $end) = @_;
    return session(<<"IN" . $end);
put oncall:alice yes
put oncall:bob yes
\@x BEGIN $mode
\@y BEGIN $mode
\@x get oncall:bob
\@y get oncall:alice
\@x put oncall:alice no
\@y put oncall:bob no
\@x COMMIT
\@y COMMIT
IN
}

my $skew = <<'OUT';
OK (0.0ms)
OK (0.0ms)
Transaction @x started
Transaction @y started
yes (0.0ms)
yes (0.0ms)
OK (staged)
OK (staged)
Transaction @x committed (0.0ms)
OUT

{
    my ($out, $err, $code) = write_skew('SNAPSHOT', "scan\n");
    is($out, $skew . <<'OUT', 'write skew goes through under snapshot isolation');
Transaction @y committed (0.0ms)
oncall:alice no
oncall:bob   no
(2 records, 0.0ms)
OUT
    is($err, '', 'without a word');
    is($code, 0, 'and no failure');

    ($out, $err, $code) = write_skew('Serializable', "scan\n\@y get oncall:bob\n");
    is($out, $skew . <<'OUT', 'a serializable one does not commit after it');
oncall:alice no
oncall:bob   yes
(2 records, 0.0ms)
OUT
    like($err, qr/\Aerror: line 10: the transaction \@y was rolled back: .*oncall:alice.*\n/, 'and names the key');
    like($err, qr/\nerror: line 12: no transaction \@y is open: \@y BEGIN starts one\n\z/, 'the transaction is gone');
    is($code, 1, 'a failed commit fails the script');
}

# the same with a range: a record that was not there when it was counted
for my $mode (['snapshot', 0], ['serializable', 1]) {
    my ($out, $err, $code) = session(<<"IN");
\@x BEGIN $mode->[0]
\@y BEGIN $mode->[0]
\@x count room: room;
\@y count room: room;
\@x put room:1 x
\@y put room:2 y
\@x COMMIT
\@y COMMIT
count
IN
    is($code, $mode->[1], "a phantom under $mode->[0]");
    like($out, $mode->[1] ? qr/^1 \(0.0ms\)\n\z/m : qr/^2 \(0.0ms\)\n\z/m, 'and what is there afterwards');
    like($err, $mode->[1] ? qr/\Aerror: line 8: the transaction \@y was rolled back: .*room:1.*\n\z/ : qr/\A\z/, 'the conflict names the new key');
}

# lost update: the first to commit wins; others are told
{
    my ($out, $err) = session(<<'IN');
put n 10
begin
@b begin
get n
@b get n
put n 11
@b put n 12
@b commit
commit
get n
IN
    like($out, qr/Transaction \@b committed \(0.0ms\)\n12 \(0.0ms\)\n\z/, 'no update is lost');
    like($err, qr/\Aerror: line 9: the transaction was rolled back: .*\bn\b.*\n\z/, 'the second to commit hears of the key');

    ($out, $err) = session(<<'IN');
put n 10
@a begin
@a get-for-update n
put n 11
@a put m 1
@a commit
@b begin
@b get n
put n 12
@b put m 1
@b commit
get-for-update n
IN
    like($err, qr/\Aerror: line 6: the transaction \@a was rolled back: .*\bn\b.*\nerror: line 12: get-for-update claims a key for a transaction, and none is open: BEGIN starts one\n\z/,
         'what is read for update must not have changed, what is only read may have');
}

# snapshots stand still; single writes go on beside them
{
    my ($out, $err) = session(<<'IN');
put a 1
@r begin readonly
put a 2
del a
put b 1
@r get a
@r scan
@r put a 3
@r commit
scan
IN
    like($out, qr/^1 \(0.0ms\)\na 1\n\(1 record, 0.0ms\)\nTransaction \@r committed/m, 'a read-only transaction sees its moment');
    like($out, qr/b 1\n\(1 record, 0.0ms\)\n\z/, 'others the present');
    like($err, qr/\Aerror: line 8: .*read-only.*\n\z/, 'and does not write');
}

# locks: who must wait is told for whom, and goes on
{
    my ($out, $err, $code) = session(<<'IN', '--lock-timeout=100');
put a 1
put b 2
@x begin pessimistic
@y begin pessimistic
@x get a
@y get a
@x put a 3
@y put b 4
@x get b
put b 5
show locks
@y commit
@x put a 6
@x get b
@x commit
scan
show locks
IN
    my ($x) = $err =~ /^error: line 7: .*\b(\d+) is transaction \@y\)$/m;
    ok(defined $x, 'an upgrade waits for the other reader, in vain') or diag($err);
    like($err, qr/^error: line 9: .*\b\d+ is transaction \@y\)$/m, 'a read waits for the writer');
    like($err, qr/^error: line 10: .*\b\d+ is transaction \@y\)$/m, 'so does a single write');
    is(() = $err =~ /\n/g, 3, 'nothing else failed');
    like($out, qr/^name +id +mode +state +bucket +lock\n(?:\@[xy] +\d+ +shared +held +default +key a\n){2}\@y +\d+ +exclusive +held +default +key b\n/m,
         'show locks');
    like($out, qr/a 6\nb 4\n\(2 records, 0.0ms\)\nNo lock is held\n\z/, 'after the timeout both went on and committed');
    is($code, 1, 'a timeout is a failure');

    ($out, $err) = session(<<'IN', '--lock-timeout=100');
put b 1
put d 1
@x begin pessimistic
@x scan a c
@y begin pessimistic
@y put bb 1
@y put e 2
show locks
@y put bb 1
@x commit
@y put bb 1
@y commit
count
IN
    like($err, qr/\Aerror: line 6: .*\@x\)\nerror: line 9: .*\@x\)\n\z/, 'a range that was read is closed to new records');
    like($out, qr/^\@x +\d+ +shared +held +default +range \S+ \S+$/m, 'and shown as a range');
    like($out, qr/^4 \(0.0ms\)\n\z/m, 'until the reader has ended');
}

# show transactions
{
    my ($out, $err) = session(<<'IN');
show transactions
begin
put a 1
put b 1
@s begin serializable
@p begin pessimistic
@p put c 1
@r begin readonly
show transactions
@p rollback
rollback
@s commit
@r commit
show transactions
IN
    is($err, '', 'nothing failed');
    my ($table) = $out =~ /^(name .*?^\@r[^\n]*\n)/ms;
    like($table, qr/\Aname +id +mode +snapshot +writes +bytes +locks +waits_for +age\n/, 'a heading');
    like($table, qr/^unnamed +\d+ +snapshot +\d+ +2 +\d+ +0 +- +0.0ms$/m, 'the unnamed one');
    like($table, qr/^\@s +\d+ +serializable +\d+ +0 +\d+ +0 +- +0.0ms$/m, 'a serializable one');
    like($table, qr/^\@p +\d+ +pessimistic +- +1 +\d+ +[1-9]\d* +- +0.0ms$/m, 'a pessimistic one, which has a lock and no snapshot');
    like($table, qr/^\@r +\d+ +readonly +\d+ +0 +\d+ +0 +- +0.0ms$/m, 'a read-only one');
    is(scalar(my @lines = split /\n/, $table), 5, 'no other');
    like($out, qr/\ANo transaction is open\n.*\nNo transaction is open\n\z/s, 'none at first, none at last');
}

# one operation
{
    my ($out, $err, $code) = session(<<'IN');
cas a - 1
cas a 1 "two words"
cas a 1 3
get a
cas a "two words" -
get a
cas q - "-"
cas q "-" x
get q
add n 5
add n -7
get n
add n x
add q 1
begin
cas a - 1
add n 1
IN
    is($out, <<'OUT', 'cas and add');
OK (0.0ms)
OK (0.0ms)
two words (0.0ms)
OK (0.0ms)
not found (0.0ms)
OK (0.0ms)
OK (0.0ms)
x (0.0ms)
5 (0.0ms)
-2 (0.0ms)
"\xfe\xff\xff\xff\xff\xff\xff\xff" (0.0ms)
Transaction started
Transaction rolled back: the session ended before COMMIT
OUT
    my @errors = split /\n/, $err;
    like($errors[0], qr/^error: line 3: ./, 'another value is a failure');
    is($errors[1], 'error: line 13: add needs a whole number of 64 bits', 'a delta is a number');
    like($errors[2], qr/^error: line 14: ./, 'a counter has 8 bytes');
    is($errors[3], 'error: line 16: cas is not part of a transaction: COMMIT or ROLLBACK first', 'cas stands alone');
    is($errors[4], 'error: line 17: add is not part of a transaction: COMMIT or ROLLBACK first', 'so does add');
    is(@errors, 5, 'that was all');
}

# names, savepoints of each, what is refused, the end of the session
{
    my ($out, $err, $code) = session(<<'IN');
@a begin
@a begin
@b begin nonsense
@b put x 1
@ begin
@a
@a! begin
@aaaaaaaaaabbbbbbbbbbccccccccccddd begin
@a flush
@a frob
verify
set lock_timeout 200
bucket create beside
@a put k 1
@a savepoint s
@a put k 2
@b begin
@b savepoint t
@b rollback to s
@a rollback to s
@a get k
begin
IN
    is($out, <<'OUT', 'names and savepoints');
Transaction @a started
OK (0.0ms)
OK (staged)
Savepoint s set
OK (staged)
Transaction @b started
Savepoint t set
Rolled back to savepoint s
1 (0.0ms)
Transaction started
Transaction @a rolled back: the session ended before COMMIT
Transaction @b rolled back: the session ended before COMMIT
Transaction rolled back: the session ended before COMMIT
OUT
    is($err, <<'ERR', 'what is refused');
error: line 2: transaction @a is open already: COMMIT or ROLLBACK it, or set a SAVEPOINT
error: line 3: usage: BEGIN [SNAPSHOT|SERIALIZABLE|PESSIMISTIC|READONLY]
error: line 4: no transaction @b is open: @b BEGIN starts one
error: line 5: a transaction's name is @ and 1 to 32 letters, digits, _ - or .
error: line 6: @a needs a command behind it
error: line 7: a transaction's name is @ and 1 to 32 letters, digits, _ - or .
error: line 8: a transaction's name is @ and 1 to 32 letters, digits, _ - or .
error: line 9: flush is no command for a transaction: leave @a out
error: line 10: unknown command frob (help lists the commands)
error: line 11: verify needs the database closed, and open is transaction @a: COMMIT or ROLLBACK first
error: line 12: set needs the database closed, and open is transaction @a: COMMIT or ROLLBACK first
error: line 19: there is no savepoint "s"
ERR
}

{
    my ($out, $err, $code) = session(<<'IN');
bucket create other
bucket use other
set lock_timeout 30
put a 1
@x begin pessimistic
@x put a 2
get a
put a 3
show locks
@x rollback
get a
set lock_timeout never
set
set nonsense 3
IN
    is($out =~ s/ +/ /gr =~ s/^\@x \d+ /\@x 1 /mr, <<'OUT', 'set lock_timeout') or diag($err);
OK (0.0ms)
OK (0.0ms)
A lock is waited for 30 ms from now on
OK (0.0ms)
Transaction @x started
OK (staged)
1 (0.0ms)
name id mode state bucket lock
@x 1 exclusive held other key a
Transaction @x rolled back
1 (0.0ms)
OUT
    like($err, qr/\Aerror: line 8: .*\b30 ?ms\b.*\(\d+ is transaction \@x\)\n/, 'and that long it is');
    like($err, qr/\nerror: line 12: .*never.*\nerror: line 13: usage: set lock_timeout MS\nerror: line 14: usage: set lock_timeout MS\n\z/, 'mistakes');
}

done_testing();
