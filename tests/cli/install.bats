#!/usr/bin/env bats
# SPDX-License-Identifier: LGPL-2.1-or-later
# What `meson install` installs, used as a stranger would: programs, manual pages, and the library by pkg-config.
load common

setup_file() {
	root=$BATS_FILE_TMPDIR/root
	meson install -C "$PLOOP_BUILD" --no-rebuild --destdir "$root" >"$BATS_FILE_TMPDIR/install.log"
	prefix=$(find "$root" -path '*/sbin/ploop')
	prefix=${prefix%/sbin/ploop}
	export root prefix
}

# example NAME: builds examples/NAME.c with nothing but what was installed.
example() {
	require cc pkg-config
	PKG_CONFIG_PATH=$(dirname "$(find "$prefix" -name ploop.pc)")
	export PKG_CONFIG_PATH PKG_CONFIG_SYSROOT_DIR=$root
	# The flags are meant to be split.
	# shellcheck disable=SC2046
	cc -Wall -Wextra -Werror -o "$1" "$PLOOP_SOURCE/examples/$1.c" $(pkg-config --cflags --libs ploop)
	LD_LIBRARY_PATH=$(dirname "$(find "$prefix" -name libploop.so)")
	export LD_LIBRARY_PATH PLOOPD=$prefix/sbin/ploopd
}

@test "everything is in its place" {
	cd "$prefix"
	for file in sbin/ploop sbin/ploopd sbin/mount.ploop sbin/umount.ploop include/ploop/ploop.h share/bash-completion/completions/ploop \
		share/man/man8/ploop.8 share/man/man8/ploopd.8; do
		[ -s $file ] || { echo "no $file" >&2; false; }
	done
	sbin/ploop version
	readelf -d "$(find . -name libploop.so)" | grep -F 'Library soname: [libploop.so.1]'
}

@test "the header stands alone, in C and C++" {
	require cc
	echo '#include <ploop/ploop.h>' >one.c
	cc -std=c99 -pedantic -Wall -Wextra -Werror -I "$prefix/include" -c one.c
	for compiler in clang c++; do
		command -v $compiler >/dev/null || continue
		$compiler -x c++ -Wall -Wextra -Werror -I "$prefix/include" -fsyntax-only one.c
		return
	done
	skip "no C++ compiler"
}

@test "examples/create: a disk that is sound" {
	require qemu-img
	example create
	run ./create 209715200 disk.hds
	status_is 0
	output_has "disk.hds: ploop1 version 2, 209715200 bytes in clusters of 1048576"
	qemu-img check -f parallels disk.hds
	run ./create 209715200 disk.hds
	status_is 38
	output_is_one_line
	output_has "File exists"
}

@test "examples/read: a raw copy of a stack, equal to what QEMU reads" {
	require qemu-img qemu-io
	example read
	qemu-img create -q -f parallels disk.hds 64m
	qemu-io -f parallels -c 'write -P 1 5m 300k' -c 'write -P 2 63m 1m' disk.hds >/dev/null
	./read disk.hds copy.raw
	qemu-img convert -f parallels -O raw disk.hds want.raw
	cmp copy.raw want.raw
	[ "$(stat -c %b copy.raw)" -lt 8192 ]
	run ./read nowhere.hds other.raw
	[ "$status" -ne 0 ]
	output_is_one_line
}

@test "examples/mount: a command runs on the mounted disk" {
	require_root
	require qemu-img mkfs.ext4
	[ -c /dev/fuse ] || skip "no /dev/fuse"
	example mount
	truncate -s 64m fs.raw
	mkfs.ext4 -q fs.raw
	qemu-img convert -f raw -O parallels fs.raw disk.hds
	mkdir mnt
	run ./mount disk.hds mnt sh -c 'echo hello >file; exit 3'
	status_is 3
	output_has "disk.hds is /dev/ploop"
	[ -z "$(ls mnt)" ]
	run ./mount disk.hds mnt cat file
	status_is 0
	output_has hello
	qemu-img check -f parallels disk.hds
}
