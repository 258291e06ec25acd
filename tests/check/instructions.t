#!/usr/bin/perl
# How many instructions an operation takes, counted by callgrind, beside stored bounds: what got slower by work shows on any machine, however busy. One test for each
# operation of instructions.txt. With --store it writes that file anew, from what it measures.
use strict;
use warnings;
use File::Path qw(make_path remove_tree);
use FindBin;

my ($bounds_path, $program, $dir) = ("$FindBin::Bin/instructions.txt", 'build/tests/instructions', 'build/instructions');
my ($allowed, $told) = (1.08, 0.85); # above the measured value: a failure; below: a word that the bound may be tightened

sub bail { print "Bail out! $_[0]\n"; exit 2 }

# name -> [measured when it was stored, bound]; and the names in order
sub bounds_read {
    my (%bounds, @names);
    open my $in, '<', $bounds_path or bail("$bounds_path: $!");
    while (<$in>) {
        next if /^\s*(#|$)/;
        /^(\S+)\s+([\d.]+)\s+([\d.]+)\s*$/ or bail("$bounds_path:$.: not a name and two numbers");
        $bounds{$1} = [$2, $3];
        push @names, $1;
    }
    return (\%bounds, @names);
}

# The instructions that callgrind counted up to the request of that name. Its files are numbered in the order of the requests.
sub counts_read {
    my %counts;
    for my $path (glob "$dir/counts.*") {
        open my $in, '<', $path or bail("$path: $!");
        my $name;
        while (<$in>) {
            $name = $1 if /^desc: Trigger: Client Request: (\S+)/;
            $counts{$name} = $1 if defined $name && /^totals: (\d+)/;
        }
    }
    return %counts;
}

# name -> instructions for each operation, and the names in order
sub measure {
    remove_tree($dir);
    make_path($dir);
    my @command = (qw(timeout --kill-after=10 300 valgrind --tool=callgrind --instr-atstart=no --collect-atstart=no --fair-sched=yes), "--callgrind-out-file=$dir/counts",
                   $program, "$dir/database");
    my @lines = `@command 2> $dir/errors`;
    if ($? != 0) {
        open my $in, '<', "$dir/errors" or bail("$dir/errors: $!");
        print map { "# $_" } <$in>;
        bail("$program did not end well under callgrind");
    }
    my %counts = counts_read();
    my (%each, @names);
    for (@lines) {
        /^(\S+) (\d+)$/ && $counts{$1} or bail("callgrind counted nothing for: $_");
        $each{$1} = $counts{$1} / $2;
        push @names, $1;
    }
    remove_tree("$dir/database");
    return (\%each, @names);
}

sub store {
    my ($each, @names) = measure();
    open my $out, '>', $bounds_path or die "$bounds_path: $!\n";
    print $out "# Instructions for each operation: measured, and the most that instructions.t lets pass. tests/check/instructions.t --store writes this file.\n",
        "# Counted with gcc 12 and glibc 2.36 on x86-64; other compilers differ by some percent.\n";
    printf $out "%-18s %9.1f %9.0f\n", $_, $each->{$_}, $each->{$_} * $allowed for @names;
    close $out or die "$bounds_path: $!\n";
}

if (@ARGV) {
    die "usage: $0 [--store]\n" if @ARGV > 1 || $ARGV[0] ne '--store';
    store();
    exit 0;
}

my ($bounds, @names) = bounds_read();
my ($each, @measured) = measure();
my $failed = 0;
print '1..', @names + 1, "\n";
for my $i (0 .. $#names) {
    my ($name, $now) = ($names[$i], $each->{$names[$i]});
    my ($before, $most) = @{$bounds->{$name}};
    my $right = defined $now && $now <= $most;
    $failed += !$right;
    printf "%sok %d - %s: %s instructions, at most %d\n", $right ? '' : 'not ', $i + 1, $name, defined $now ? sprintf('%.1f', $now) : 'no', $most;
    next unless defined $now;
    printf "# %s: %.1f instructions, %+.1f %% from the %.1f that were stored\n", $name, $now, ($now / $before - 1) * 100, $before;
    printf "# %s: more than %.0f %% below: tests/check/instructions.t --store would tighten the bound\n", $name, (1 - $told) * 100 if $now < $before * $told;
}
my @without = grep { !$bounds->{$_} } @measured;
$failed += @without > 0;
printf "%sok %d - every operation that is counted has a bound\n", @without ? 'not ' : '', @names + 1;
print "# without one: @without\n" if @without;
exit($failed > 0);
