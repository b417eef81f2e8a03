#!/usr/bin/env bats
# SPDX-License-Identifier: LGPL-2.1-or-later
# The frame of the command line: leading options, verbs, help, exit statuses.
load common

@test "without a verb: the summary on standard error, 38" {
	run --separate-stderr ploop
	status_is 38
	[ -z "$output" ]
	# shellcheck disable=SC2154
	[[ "$stderr" == "Usage: ploop "* ]]
}

@test "help and --help print the summary on standard output" {
	run ploop help
	status_is 0
	output_has "Usage: ploop "
	help=$output
	run ploop --help
	status_is 0
	[ "$output" = "$help" ]
}

@test "each verb alone prints its usage on standard error with 38, or means something" {
	while IFS=$'\t' read -r verb bare _; do
		run ploop help "$verb"
		status_is 0
		output_has "Usage: ploop $verb"
		run ploop "$verb" --help
		status_is 0
		output_has "Usage: ploop $verb"
		[ "$bare" = - ] || continue
		run --separate-stderr ploop "$verb"
		status_is 38
		[ -z "$output" ]
		[[ "$stderr" == "Usage: ploop $verb"* ]]
	done < <(ploop help --table)
}

@test "an unknown leading option: 38" {
	run ploop -x
	status_is 38
	output_has "Bad option -x"
}

@test "an unknown verb: 38 and the summary" {
	run ploop frobnicate
	status_is 38
	output_has "there is no verb frobnicate"
	output_has "Usage: ploop"
}

@test "an unknown verb runs ploop-VERB with its arguments" {
	mkdir bin
	printf '#!/bin/sh\necho "ran $# $*"\nexit 7\n' >bin/ploop-frobnicate
	chmod +x bin/ploop-frobnicate
	PATH=$PWD/bin:$PATH run ploop frobnicate -x "a b"
	status_is 7
	[ "$output" = "ran 2 -x a b" ]
}

@test "an unknown option and a missing argument: one line, 38" {
	run ploop version --frob
	status_is 38
	output_is_one_line
	output_has "there is no option --frob"
	run ploop version -q
	output_has "there is no option -q"
	run ploop version --json=1
	status_is 38
	output_has "option --json=1 takes no argument"
}

@test "verbosity: -v-2 is silent, -v4 tells the time" {
	run ploop -v-2 version -q
	status_is 38
	[ -z "$output" ]
	run ploop -v4 version -q
	[[ "$output" =~ ^\[[\ 0-5][0-9]\.[0-9]{6}\]\ ploop\ version: ]]
	run ploop -v version -q
	[[ "$output" =~ ^\[[\ 0-5][0-9]\.[0-9]{6}\]\ ploop\ version: ]]
	run ploop -vx version
	status_is 38
}

@test "options may follow operands" {
	run ploop help version --table
	status_is 0
	[ "$output" = $'-\tjson\t-' ]
}

@test "version, plain and as JSON" {
	require jq
	run ploop version
	status_is 0
	[[ "$output" =~ ^ploop\ [0-9]+\.[0-9]+\.[0-9]+$ ]]
	[ "ploop $(ploop version --json | jq -r .version)" = "$output" ]
	[ "$(ploop --version)" = "$output" ]
}

@test "output that cannot be written is a failure" {
	run bash -c 'ploop help >/dev/full'
	status_is 7
}
