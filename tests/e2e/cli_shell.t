#!/usr/bin/perl
# The shell on a pipe: its look, its commands, its mistakes.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/lib";
use CliTest;
use Test::More;

sub session_is {
    my ($name, $input, $expected, $code, $errors, @options) = @_;
    my ($got_code, $out, $err) = shell(fresh_database(), $input, @options);
    is(without_times($out), $expected, "$name: output");
    is($err, $errors // '', "$name: errors");
    is($got_code, $code // 0, "$name: exit code");
}

# A session with a bit of everything.
session_is('a bit of everything', <<'IN', <<'OUT');
put user:1 {"name": "Alice", "age": 30}
get user:1
BEGIN
put user:1 {"name": "Alice", "age": 31}
ROLLBACK
get user:1
IN
OK (0.0ms)
{"name": "Alice", "age": 30} (0.0ms)
Transaction started
OK (staged)
Transaction rolled back
{"name": "Alice", "age": 30} (0.0ms)
OUT

session_is('a committed transaction', <<'IN', <<'OUT');
put a 1
Begin
put a 2
del a
del a
put b 3
get b
scan
commit
scan
IN
OK (0.0ms)
Transaction started
OK (staged)
OK (staged)
not found (0.0ms)
OK (staged)
3 (0.0ms)
b 3
(1 record, 0.0ms)
Transaction committed (0.0ms)
b 3
(1 record, 0.0ms)
OUT

session_is('savepoints', <<'IN', <<'OUT', 1, qq(error: line 9: there is no savepoint "two"\n));
begin
put a 1
savepoint one
put b 2
savepoint two
put c 3
rollback to one
count
rollback to two
rollback TO one
commit
scan
IN
Transaction started
OK (staged)
Savepoint one set
OK (staged)
Savepoint two set
OK (staged)
Rolled back to savepoint one
1 (0.0ms)
Rolled back to savepoint one
Transaction committed (0.0ms)
a 1
(1 record, 0.0ms)
OUT

session_is('savepoints without a name', <<'IN', <<'OUT');
begin
put a 1
savepoint
put b 2
savepoint
put c 3
rollback to 2
scan
rollback to 1
commit
scan
IN
Transaction started
OK (staged)
Savepoint 1 set
OK (staged)
Savepoint 2 set
OK (staged)
Rolled back to savepoint 2
a 1
b 2
(2 records, 0.0ms)
Rolled back to savepoint 1
Transaction committed (0.0ms)
a 1
(1 record, 0.0ms)
OUT

session_is('ranges', <<'IN', <<'OUT');
put a 1
put b 2
put c 3
put ca 4
put d 5
scan b d
scan b d reverse
scan reverse limit 2
scan c
scan "" b
prefix c
prefix c limit 1 reverse
count
count b
count b ca
first
last
delete-range b ca
scan
delete-range "" ""
first
IN
OK (0.0ms)
OK (0.0ms)
OK (0.0ms)
OK (0.0ms)
OK (0.0ms)
b  2
c  3
ca 4
(3 records, 0.0ms)
ca 4
c  3
b  2
(3 records, 0.0ms)
d  5
ca 4
(2 records, 0.0ms)
c  3
ca 4
d  5
(3 records, 0.0ms)
a 1
(1 record, 0.0ms)
c  3
ca 4
(2 records, 0.0ms)
ca 4
(1 record, 0.0ms)
5 (0.0ms)
4 (0.0ms)
2 (0.0ms)
a 1 (0.0ms)
d 5 (0.0ms)
OK (0.0ms)
a  1
ca 4
d  5
(3 records, 0.0ms)
OK (0.0ms)
not found (0.0ms)
OUT

session_is('a range delete inside a transaction', <<'IN', <<'OUT');
put a 1
put b 2
put c 3
begin
put bb 4
delete-range b c
scan
rollback
count
IN
OK (0.0ms)
OK (0.0ms)
OK (0.0ms)
Transaction started
OK (staged)
OK (staged)
a 1
c 3
(2 records, 0.0ms)
Transaction rolled back
3 (0.0ms)
OUT

session_is('quoting', <<'IN', <<'OUT');
put "a key" "two\nlines\t\"quoted\" \\ \x01\xff"
get a\x20key
put \x00\xff grün  und weiß 
get "\x00\xff"
put e ""
get e
put q "\"starts with a quote"
put n "limit"
put limit 1
scan "limit"
put back C:\new\x41
scan
IN
OK (0.0ms)
"two\nlines\t\"quoted\" \\ \x01\xff" (0.0ms)
OK (0.0ms)
"grün  und weiß " (0.0ms)
OK (0.0ms)
"" (0.0ms)
OK (0.0ms)
OK (0.0ms)
OK (0.0ms)
"limit" 1
n       limit
q       "\"starts with a quote"
(3 records, 0.0ms)
OK (0.0ms)
"\x00\xff" "grün  und weiß "
"a key"    "two\nlines\t\"quoted\" \\ \x01\xff"
back       C:\new\x41
e          ""
"limit"    1
n          limit
q          "\"starts with a quote"
(7 records, 0.0ms)
OUT

session_is('buckets', <<'IN', <<'OUT', 1, <<'ERR');
bucket create logs
bucket create "two words"
buckets
bucket use logs
put a logged
bucket use default
get a
bucket use logs
get a
bucket create logs
bucket use none
bucket drop logs
get a
bucket list
bucket drop none
bucket frob x
IN
OK (0.0ms)
OK (0.0ms)
default
logs
"two words"
OK (0.0ms)
OK (0.0ms)
OK (0.0ms)
not found (0.0ms)
OK (0.0ms)
logged (0.0ms)
OK, the bucket in use is default again (0.0ms)
not found (0.0ms)
default
"two words"
OUT
error: line 10: the bucket "logs" is there already
error: line 11: there is no bucket "none" (bucket create none makes one)
error: line 15: there is no bucket "none"
error: line 16: usage: bucket create|use|drop NAME, bucket list
ERR

session_is('mistakes', <<'IN', <<'OUT', 1, <<'ERR');
# a comment, and an empty line

frobnicate 1 2
put
put a
put a "x
put a "x" y
put a\q b
get
get a b
scan b a
scan a b c
scan limit x
commit
rollback
savepoint x
timing maybe
put ok 1
IN
OK (0.0ms)
OUT
error: line 3: unknown command frobnicate (help lists the commands)
error: line 4: usage: put KEY VALUE
error: line 5: usage: put KEY VALUE
error: line 6: the closing quote is missing
error: line 7: there is text right behind the closing quote (a quote inside is \")
error: line 8: unknown escape \q: there are \n \t \" \\ and \xNN
error: line 9: usage: get KEY
error: line 10: usage: get KEY
error: line 11: the range ends before it begins
error: line 12: usage: scan [FROM [TO]] [limit N] [reverse]
error: line 13: limit needs a number
error: line 14: no transaction is open: BEGIN starts one
error: line 15: no transaction is open: BEGIN starts one
error: line 16: no transaction is open: BEGIN starts one
error: line 17: usage: timing on | off
ERR

session_is('refused within a transaction', <<'IN', <<'OUT', 1, <<'ERR');
begin
begin
verify
bucket create x
bucket drop x
put a 1
IN
Transaction started
OK (staged)
Transaction rolled back: the session ended before COMMIT
OUT
error: line 2: a transaction is open already: COMMIT or ROLLBACK it, set a SAVEPOINT, or open another by name: @a BEGIN
error: line 3: verify needs the database closed, and open is the unnamed transaction: COMMIT or ROLLBACK first
error: line 4: bucket is not part of a transaction: COMMIT or ROLLBACK first
error: line 5: bucket is not part of a transaction: COMMIT or ROLLBACK first
ERR

session_is('maintenance, and timing off', <<'IN', <<'OUT', 0, '', '--async');
bucket create logs
bucket use logs
timing off
put a 1
flush
checkpoint
compact
verify
get a
scan
timing on
get a
quit
get a
IN
OK (0.0ms)
OK (0.0ms)
Timing is off
OK
OK
OK
OK
Closing the database, which verify needs; it is opened again afterwards
Sound
1
a 1
(1 record)
Timing is on
1 (0.0ms)
OUT

{
    my ($code, $out, $err) = shell(fresh_database(), "begin readonly\nput a 1\nrollback\nstat\nhelp\nhelp scan\nput end 1");
    is($code, 1, 'a write in a read-only transaction fails');
    like($err, qr/\Aerror: line 2: .*read-only.*\n\z/, 'and says why');
    like($out, qr/^page_size +4096 +size of a page, bytes$/m, 'stat shows the counters with their meaning');
    like($out, qr/^scan \[FROM \[TO\]\] \[limit N\] \[reverse\]\n  shows the records/m, 'help of one command');
    like($out, qr/^OK \(.*ms\)\n\z/m, 'a last line without a newline is run');
}

{
    my $database = fresh_database();
    my $value = join '', map { chr(33 + $_ * 7 % 90) } 1 .. 1 << 20;
    $value =~ s/\A"/x/;
    my ($code, $out) = shell($database, "put big $value\r\nget big\nput a 1\n");
    is($code, 0, 'a value of 1 MiB is written');
    ok(index($out, "$value (") > 0, 'and read back whole');
    my $binary = join '', map { chr($_ & 255) } 1 .. 100_000;
    my $typed = join '', map { sprintf '\x%02x', ord } split //, $binary;
    ($code, $out) = shell($database, "put bin \"$typed\"\nget bin\n");
    my ($shown) = $out =~ /^(".*") \(/m;
    ($code, $out) = shell($database, "put again $shown\n");
    ($code, $out) = run('', 'get', $database, 'again', '--raw');
    ok($out eq $binary, 'what is shown of a binary value can be typed back');
}

{
    my ($code, $out, $err) = run("put a 1\n", 'shell', "$scratch/no/such");
    is($code, 3, 'a database that cannot be made: exit code 3');
    like($err, qr/\Aerror: cannot open \Q$scratch\E\/no\/such: .*\n\z/, 'in one line');
}

done_testing();
