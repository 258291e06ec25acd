#!/usr/bin/perl
# The example server: many clients at once, requests in pieces and in heaps, wrong ones; and what it has said is durable after a kill.
use strict;
use warnings;
use FindBin;
use File::Temp qw(tempdir);
use IO::Socket::UNIX;
use Test::More;

my $program = "$FindBin::Bin/../../build/examples/epoll";
my $there = tempdir('ringwood-epoll-XXXXXX', TMPDIR => 1, CLEANUP => 1);
my $name = "$there/socket";
my $server;

sub start {
    unlink $name;
    $server = fork // die "fork: $!";
    if ($server == 0) { exec($program, "$there/db", $name) or exit 127 }
    # the name is there before the server listens
    for (1 .. 400) { return if IO::Socket::UNIX->new(Type => SOCK_STREAM, Peer => $name); select(undef, undef, undef, 0.05) }
    die "the server does not listen";
}

# However the test ends: a server that is left would hold the pipe that prove reads.
END { my $status = $?; if ($server) { kill 'KILL', $server; waitpid $server, 0 } $? = $status }
$SIG{ALRM} = sub { die "nothing has happened for too long" };
$SIG{PIPE} = 'IGNORE'; # the server hangs up on what is too long before all of it is written

sub client { return IO::Socket::UNIX->new(Type => SOCK_STREAM, Peer => $name) || die "connect: $!" }
sub ask { my ($client, $line) = @_; print $client "$line\n"; $client->flush; my $answer = <$client>; chomp $answer if defined $answer; return $answer }

alarm 120;
start();
my $one = client();
is(ask($one, 'GET a'), 'NONE', 'nothing is there');
is(ask($one, 'PUT a some value'), 'OK', 'put');
is(ask($one, 'GET a'), 'VALUE some value', 'get');
is(ask($one, 'DEL a'), 'OK', 'del');
is(ask($one, 'DEL a'), 'NONE', 'nothing to delete');
like(ask($one, $_), qr/^ERROR/, "not a request: $_") for 'HELLO', 'GET', 'PUT x';
like(ask($one, 'GET '), qr/^ERROR invalid argument/, 'an empty key');
is(ask($one, 'PUT b 1'), 'OK', 'and it goes on');

print $one "PUT c 1\nGET c\nDEL c\nGET c\nGE";
is(join('|', map { my $line = <$one>; chomp $line; $line } 1 .. 4), 'OK|VALUE 1|OK|NONE', 'four requests in one piece are answered in order');
is(ask($one, 'T b'), 'VALUE 1', 'a request in two pieces');

my @clients = map { client() } 1 .. 100;
my $wrong = 0;
for my $round (1 .. 10) {
    print { $clients[$_] } "PUT key$_ $round\nGET key$_\n" for 0 .. $#clients;
    for my $i (0 .. $#clients) {
        my $client = $clients[$i];
        $wrong++ if (readline($client) // '') ne "OK\n" || (readline($client) // '') ne "VALUE $round\n";
    }
}
is($wrong, 0, '100 clients at once, each gets its own answers');
close $_ for @clients[0 .. 49];
print { $clients[50] } "PUT long " . 'x' x 10000 . "\n";
is(readline($clients[50]), undef, 'a line that is too long ends its connection');
is(ask($one, 'GET key7'), 'VALUE 10', 'the others go on');

kill 'KILL', $server;
waitpid $server, 0;
start();
my $again = client();
is(scalar(grep { ask($again, "GET key$_") ne 'VALUE 10' } 0 .. 99), 0, 'after a kill everything is there that was answered');
kill 'TERM', $server;
waitpid $server, 0;
$server = 0;
done_testing;
