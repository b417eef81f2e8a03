# SPDX-License-Identifier: LGPL-2.1-or-later
# common.bash - what the bats files share. Each test runs in an empty folder of its own, which bats removes.
#
#	load common
#
#	@test "a new disk is empty" {
#		ploop init -s 64m -t none disk.hds
#		...
#	}

bats_require_minimum_version 1.5.0

setup() {
	cd "$BATS_TEST_TMPDIR" || return 1
	if declare -F own_setup >/dev/null; then own_setup; fi
}

# What a file's tests leave behind goes here: own_teardown().
teardown() {
	if declare -F own_teardown >/dev/null; then own_teardown; fi
}

# Skips the test unless all these programs are there.
require() {
	local program
	for program; do
		command -v "$program" >/dev/null || skip "no $program"
	done
}

# Skips the test unless it runs as root.
require_root() {
	[ "$(id -u)" = 0 ] || skip "needs root"
}

# status_is N: the exit status of the last `run`, with its output when it is another.
status_is() {
	# shellcheck disable=SC2154
	[ "$status" -eq "$1" ] || { echo "exit status $status, not $1: $output" >&2; return 1; }
}

# output_has TEXT: the output of the last `run` contains TEXT.
output_has() {
	[[ "$output" == *"$1"* ]] || { echo "no '$1' in: $output" >&2; return 1; }
}

# output_is_one_line: an error is one line for a person.
output_is_one_line() {
	# shellcheck disable=SC2154
	[ "${#lines[@]}" -eq 1 ] || { echo "${#lines[@]} lines: $output" >&2; return 1; }
}
