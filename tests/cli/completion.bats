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
