#!/usr/bin/env bats
# SPDX-License-Identifier: LGPL-2.1-or-later
# bash completion, asked as bash asks it. That every option is completed is checked by scripts/check-docs.
load common

# complete WORD..: what is offered for the last word.
complete_words() {
	bash -c '
		source "$PLOOP_SOURCE/completion/ploop"
		COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1))
		_ploop 2>/dev/null
		printf "%s\n" "${COMPREPLY[@]}"' complete "$@"
}

@test "verbs" {
	run complete_words ploop ver
	[ "$output" = version ]
	run complete_words ploop -v4 ver
	[ "$output" = version ]
	run complete_words ploop help ver
	[ "$output" = version ]
}

@test "options of the verb" {
	run complete_words ploop version --
	[ "$output" = --json ]
	run complete_words ploop help x --t
	[ "$output" = --table ]
}

@test "files where a file is wanted" {
	touch disk.hds
	run complete_words ploop version di
	[ "$output" = disk.hds ]
}

@test "snapshots of the descriptor on the line" {
	require qemu-img
	qemu-img create -q -f parallels disk.hds 64m
	ploop restore-descriptor . disk.hds
	run complete_words ploop mount DiskDescriptor.xml -u ''
	[ "$output" = '{5fbaabe3-6958-40ff-92a7-860e329aab41}' ]
	run complete_words ploop mount --uuid = '{5f'
	[ "$output" = '{5fbaabe3-6958-40ff-92a7-860e329aab41}' ]
}

@test "devices that are there, words, folders" {
	require_root
	require qemu-img
	[ -c /dev/fuse ] || skip "no /dev/fuse"
	qemu-img create -q -f parallels disk.hds 64m
	export PLOOP_RUN_DIR=$PWD/run PLOOP_DEV_DIR=$PWD/dev
	mkdir dev
	device=$(ploop mount disk.hds | sed -n 's/^Adding delta dev=\([^ ]*\) .*/\1/p')
	run complete_words ploop umount -d ''
	ploop umount -d "$device"
	[ "$output" = "$device" ]
	mkdir folder
	run complete_words ploop mount -m f
	[ "$output" = folder ]
	run complete_words ploop mount --format = r
	[ "$output" = raw ]
}
