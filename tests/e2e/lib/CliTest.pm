# What the tests of the command share: running it, with input and both outputs, in a directory of its own.
package CliTest;
use strict;
use warnings;
use Exporter 'import';
use File::Temp qw(tempdir);
use FindBin;

our @EXPORT = qw(run shell fresh_database without_times $ringwood $scratch);

our $ringwood = $ENV{RINGWOOD} // "$FindBin::Bin/../../build/ringwood";
-x $ringwood or die "$ringwood is not there: make builds it, RINGWOOD names another\n";
our $scratch = tempdir("ringwood-cli-XXXXXX", TMPDIR => 1, CLEANUP => 1);
# small and the same everywhere; a test may be run under sanitizers, on a machine that does other things
my @small = ('--workers=1', '--cache=16M');
my $databases = 0;

sub slurp {
    my ($path) = @_;
    open my $file, '<:raw', $path or die "$path: $!";
    local $/;
    return scalar(<$file>) // '';
}

# run($input, @arguments) -> (exit code, stdout, stderr). A killed command has the code "signal N".
sub run {
    my ($input, @arguments) = @_;
    open my $in, '>:raw', "$scratch/in" or die $!;
    print $in $input;
    close $in;
    my $pid = fork() // die "fork: $!";
    if ($pid == 0) {
        open STDIN, '<', "$scratch/in" or die $!;
        open STDOUT, '>', "$scratch/out" or die $!;
        open STDERR, '>', "$scratch/err" or die $!;
        exec { $ringwood } $ringwood, @arguments or die "$ringwood: $!";
    }
    waitpid $pid, 0;
    my $code = $? & 127 ? 'signal ' . ($? & 127) : $? >> 8;
    return ($code, slurp("$scratch/out"), slurp("$scratch/err"));
}

# The shell on a pipe: shell($database, $input, @options)
sub shell {
    my ($database, $input, @options) = @_;
    return run($input, 'shell', $database, @small, @options);
}

sub fresh_database { return "$scratch/db" . ++$databases }

# Times differ from run to run: every one becomes (0.0ms).
sub without_times {
    my ($text) = @_;
    $text =~ s/\d+\.\d+ms/0.0ms/g;
    return $text;
}

1;
