#!/usr/bin/perl
# What make install leaves: header, libraries, pkg-config; what the libraries export; programs built against them.
use strict;
use warnings;
use Cwd qw(getcwd);
use FindBin;
use File::Temp qw(tempdir);
use Test::More;

my $root = "$FindBin::Bin/../..";
my $there = tempdir('ringwood-install-XXXXXX', TMPDIR => 1, CLEANUP => 1);
delete @ENV{qw(MAKEFLAGS MFLAGS MAKELEVEL VARIANT)};
my $log = `make -C '$root' install DESTDIR='$there' PREFIX=/usr 2>&1`;
is($?, 0, 'make install') or do { diag($log); done_testing; exit 1 };

sub slurp { open my $file, '<', $_[0] or die "$_[0]: $!"; local $/; return <$file> }
sub lines { return join("\n", sort @_) }

# names
my $header = slurp("$there/usr/include/ringwood.h");
my $declared = lines($header =~ /^RW_PUBLIC [^(]*?\*?(rw_\w+)\(/mg);
my $shared = lines(map { /^\S+ [TDBRW] (rw_\w+)@@/ ? $1 : /^\S+ A / ? () : "unexpected: $_" } split /\n/, `nm -D --defined-only '$there/usr/lib/libringwood.so'`);
my $static = lines(map { /^\S+ [A-Z] (\w+)$/ ? $1 : () } split /\n/, `nm -g --defined-only '$there/usr/lib/libringwood.a'`);
like($declared, qr/^rw_get$/m, 'the header declares functions');
is($shared, $declared, 'the shared library exports what the header declares, and nothing else');
is($static, $declared, 'so does the static library');
like(`readelf -d '$there/usr/lib/libringwood.so'`, qr/SONAME.*\[libringwood\.so\.0\]/, 'SONAME');
is(readlink("$there/usr/lib/libringwood.so"), 'libringwood.so.0', 'the link for the linker leads to the SONAME');

# programs
my $strict = '-Wall -Wextra -pedantic -Werror';
@ENV{qw(PKG_CONFIG_LIBDIR PKG_CONFIG_SYSROOT_DIR)} = ("$there/usr/lib/pkgconfig", $there);
@ENV{qw(PKG_CONFIG_ALLOW_SYSTEM_CFLAGS PKG_CONFIG_ALLOW_SYSTEM_LIBS)} = (1, 1);
chomp(my $flags = `pkg-config --cflags --libs ringwood`);
chomp(my $static_libs = `pkg-config --static --libs-only-l ringwood`);
like($flags, qr/-lringwood/, 'pkg-config knows it') or diag($flags);
like($header, qr/VERSION_MAJOR \Q@{[`pkg-config --modversion ringwood` =~ m{^(\d+)}]}\E$/m, 'the same major version in header and pkg-config');

# names of our own that the library uses inside: they must not meet
my $clash = "$there/clash.c";
open my $file, '>', $clash or die $!;
print $file "int $_(void);\nint $_(void) { return 1; }\n" for qw(kio_open wal_wait tree_find pool_open engine_get options_check store_open);
close $file;

sub program {
    my ($name, $compiler, $libraries, $environment) = @_;
    my $out = `cd '$there' && $compiler $strict '$root/examples/first.c' -o '$name' $libraries 2>&1`;
    is($?, 0, "$name: compiles without a warning") or return diag($out);
    $out = `cd '$there' && rm -rf mydb && $environment './$name' 2>&1`;
    is($out, "Alice\n", "$name: runs");
}
my $path = "LD_LIBRARY_PATH='$there/usr/lib'";
program('c11', 'gcc -std=c11', $flags, $path);
program('c99', 'gcc -std=c99', $flags, $path);
program('static', 'gcc -std=c11', "'$clash' -I'$there/usr/include' '$there/usr/lib/libringwood.a' " . $static_libs =~ s/-lringwood//r, '');
SKIP: {
    skip 'no C++ compiler here', 4 if system('command -v g++ > /dev/null') != 0;
    program("c++$_", "g++ -std=c++$_ -x c++", $flags, $path) for 11, 17;
}
done_testing;
