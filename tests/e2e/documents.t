#!/usr/bin/perl
# The documents: their links lead somewhere, the example is the one that is built, every verb and option is described.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/lib";
use CliTest;
use File::Basename qw(dirname);
use Test::More;

my $root = "$FindBin::Bin/../..";
sub slurp { open my $file, '<', "$root/$_[0]" or die "$_[0]: $!"; local $/; return <$file> }

chomp(my @documents = `cd '$root' && find . -name build -prune -o -name '*.md' -print | sort`);
cmp_ok(scalar @documents, '>', 10, 'documents are found');
for my $document (@documents) {
    my @broken;
    for my $link (slurp($document) =~ /\[[^\]\n]*\]\(([^)\s]+)\)/g) {
        next if $link =~ /^https?:/;
        my ($path, $anchor) = split /#/, $link;
        my $target = $path eq '' ? $document : dirname($document) . "/$path";
        push @broken, $link if !-e "$root/$target";
        push @broken, $link if defined $anchor && -f "$root/$target" && slurp($target) !~ /^#+ \Q$anchor\E$/mi;
    }
    is("@broken", '', "$document: links");
}

my ($example) = slurp('README.md') =~ /^```c\n(.*?)^```$/ms;
is($example, slurp('examples/first.c'), 'the example of the README is examples/first.c');

my $readme = slurp('README.md');
my ($fields) = slurp('include/ringwood.h') =~ m{typedef struct rw_options \{(.*?)\} rw_options;}s;
$fields =~ s{/\*.*?\*/}{}gs;
my @fields = grep { $_ ne 'struct_size' } $fields =~ /(\w+);/g;
cmp_ok(scalar @fields, '>', 8, 'the options are found');
ok($readme =~ /`\Q$_\E`/, "option $_ is in the README") for @fields;

my $commands = slurp('docs/COMMANDS.md');
my ($code, $help) = run('', 'help');
my @verbs = $help =~ /^  ([a-z-]+) /mg;
cmp_ok(scalar @verbs, '>', 15, 'help lists the verbs');
my %options;
for my $verb (@verbs) {
    ok($commands =~ /`\Q$verb\E\b/, "$verb is described");
    my ($error, $text) = run('', 'help', $verb);
    $options{$_} = 1 for $text =~ /^ *(--[a-z-]+)/mg;
}
ok($commands =~ /`[^`\n]*\Q$_\E\b/, "$_ is described") for sort keys %options;
done_testing;
