#!/usr/bin/perl
# The shell on a terminal: prompt, editing, completion, history, ^C. The terminal is a pty made with what perl itself has.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/lib";
use CliTest;
use POSIX ();
use Test::More;

# ioctls of Linux, the same on x86 and arm
my ($TIOCSPTLCK, $TIOCGPTN, $TIOCSCTTY) = (0x40045431, 0x80045430, 0x540e);
my $deadline_s = 60;

sub open_terminal {
    open my $master, '+<:raw', '/dev/ptmx' or return;
    my $unlocked = pack 'i', 0;
    my $number = pack 'I', 0;
    ioctl $master, $TIOCSPTLCK, $unlocked or return;
    ioctl $master, $TIOCGPTN, $number or return;
    return ($master, '/dev/pts/' . unpack 'I', $number);
}

# A command that hangs must not hang the test.
$SIG{ALRM} = sub { BAIL_OUT("no answer on the terminal within $deadline_s seconds") };

# Starts the command on a new terminal; returns [master, pid, what it has printed].
sub start {
    my (@arguments) = @_;
    my ($master, $path) = open_terminal();
    my $pid = fork() // die "fork: $!";
    if ($pid == 0) {
        POSIX::setsid();
        open my $terminal, '+<', $path or die "$path: $!";
        ioctl $terminal, $TIOCSCTTY, 0;
        POSIX::dup2(fileno $terminal, $_) for 0 .. 2;
        $ENV{HOME} = $scratch;
        $ENV{TERM} = 'xterm';
        $ENV{LC_ALL} = 'C.UTF-8';
        exec { $ringwood } $ringwood, @arguments or POSIX::_exit(127);
    }
    return [$master, $pid, ''];
}

# The prompt appears just before the terminal is switched to single keys; what is typed in between is not edited.
sub wait_until_keys_are_read {
    my ($master) = @_;
    my $modes = POSIX::Termios->new;
    for (1 .. 100 * $deadline_s) {
        $modes->getattr(fileno $master);
        last unless $modes->getlflag & POSIX::ICANON();
        select undef, undef, undef, 0.01;
    }
}

# Reads until what came since the last call matches, or time is up. Returns what came.
sub expect {
    my ($session, $pattern) = @_;
    my ($master) = @$session;
    my $until = time + $deadline_s;
    while ($session->[2] !~ $pattern && time < $until) {
        my $ready = '';
        vec($ready, fileno $master, 1) = 1;
        next unless select $ready, undef, undef, 1;
        my $got = sysread $master, $session->[2], 65536, length $session->[2];
        last unless $got;
    }
    my $came = $session->[2];
    wait_until_keys_are_read($master) if $came =~ /> \z/;
    $session->[2] = '';
    $came =~ s/\e\[[0-9;?]*[A-Za-z]|\e[=>]//g;
    return $came;
}

sub type { my ($session, $text) = @_; syswrite $session->[0], $text; }

sub finish {
    my ($session) = @_;
    my $came = expect($session, qr/(?!)/);
    alarm $deadline_s;
    waitpid $session->[1], 0;
    alarm 0;
    return ($?, $came);
}

plan skip_all => 'no pseudo terminals here' unless open_terminal();

my $database = fresh_database();
my $session = start('shell', $database, '--workers=1', '--cache=16M');
like(expect($session, qr/> /), qr/\A> \z/, 'the prompt');
type($session, "put user:1 {\"name\": \"Alice\"}\n");
like(expect($session, qr/OK.*> /s), qr/OK \(\d+\.\d+ms\)\r\n> \z/, 'a command is run');
type($session, "gex\x7ft uesr:1" . "\x1b[D" x 5 . "\x04\x1b[Ce\n");
like(expect($session, qr/ms\).*> /s), qr/^\{"name": "Alice"\} \(\d+\.\d+ms\)\r\n> \z/m, 'a line can be edited');
type($session, "sav\tone\n");
like(expect($session, qr/error.*> /s), qr/error: no transaction is open: BEGIN starts one\r\n> /, 'a verb is completed, a mistake has no line number');
type($session, "bucket cr\tlogs-of-today\n");
expect($session, qr/OK.*> /s);
type($session, "bucket use lo\t\n");
like(expect($session, qr/OK.*> /s), qr/gs-of-today \r\nOK/, 'a bucket name is completed');
type($session, "roll\tfrob\n");
like(expect($session, qr/usage.*> /s), qr/usage: ROLLBACK \[TO NAME\]/, 'usage of the command');
type($session, "b\t\t");
like(expect($session, qr/buckets/), qr/begin +bucket +buckets/, 'several completions are listed');
type($session, "\x03");
like(expect($session, qr/\^C\r\n.*> /s), qr/\^C\r\n> \z/, '^C gives up the line');
type($session, "put g\303\274n \342\202\254\nget g\303\274n\n");
like(expect($session, qr/\342\202\254 \(.*> /s), qr/^\342\202\254 \(\d+\.\d+ms\)/m, 'UTF-8 is typed and shown');
type($session, "\@x begin ser\t\n");
like(expect($session, qr/started.*> /s), qr/ializable .*Transaction \@x started\r\n\(\@x\) > \z/s, 'a mode is completed, the prompt shows the transaction');
type($session, "begin\nshow tr\t\n");
like(expect($session, qr/pessimistic|serializable.*snapshot.*> /s), qr/\(\@x transaction\) > \z/, 'and the unnamed one');
type($session, "\@\tcom\t\n");
like(expect($session, qr/committed.*> /s), qr/Transaction \@x committed.*\r\n\(transaction\) > \z/s, 'a name is completed, and goes with COMMIT');
type($session, "put a 1\n");
expect($session, qr/staged.*> /s);      # ^D means the end only to a terminal that is being edited on
type($session, "\x04");
my ($status, $came) = finish($session);
like($came, qr/Transaction rolled back: the session ended before COMMIT/, 'the end of input rolls back, with a word about it');
is($status, 0, 'mistakes of a person are no failure');
ok(-s "$scratch/.ringwood_history", 'history is kept');
is((stat "$scratch/.ringwood_history")[2] & 077, 0, 'and private');

$session = start('shell', $database, '--workers=1', '--cache=16M');
expect($session, qr/> /);
type($session, "\x1b[A" x 6 . "\n");
like(expect($session, qr/ms\).*> /s), qr/get g\303\274n/, 'an earlier session is remembered');
type($session, "exit\n");
($status) = finish($session);
is($status, 0, 'exit ends the session');

done_testing();
