# SPDX-License-Identifier: LGPL-2.1-or-later
# devices.bash - for tests of real devices: names, run directory and log of the test's own, and nothing left behind.
#
# A file that loads it after common gets own_setup and own_teardown from here.

own_setup() {
	require_root
	[ -c /dev/fuse ] || skip "no /dev/fuse"
	[ -c /dev/loop-control ] || skip "no loop devices"
	export PLOOP_RUN_DIR=$PWD/run PLOOP_DEV_DIR=$PWD/dev
	mkdir run dev mnt
}

own_teardown() {
	local file mount pids
	# Also what a failed test left: file systems first, then devices, then daemons that do not answer any more.
	while read -r mount; do
		umount -l "$mount"
	done < <(cut -d' ' -f5 /proc/self/mountinfo | grep "^$BATS_TEST_TMPDIR/" | sort -r)
	ploop umount --all >/dev/null 2>&1
	for file in "$BATS_TEST_TMPDIR"/run/*/pid; do
		[ -f "$file" ] || continue
		# All of them stop before one of them can replace another.
		mapfile -t pids < <(cut -d' ' -f1 "$file")
		kill -STOP "${pids[@]}" 2>/dev/null
		kill -9 "${pids[@]}" 2>/dev/null
	done
	ploop umount --all >/dev/null 2>&1
	true
}

# new_image FILE [SIZE]: an empty ploop1 image.
new_image() {
	require qemu-img
	qemu-img create -q -f parallels "$1" "${2:-64M}"
}

# new_disk FILE [SIZE_MIB]: an image with a partition table and ext4 in partition 1, as `init` makes it.
new_disk() {
	require qemu-img parted mkfs.ext4
	local size=${2:-64}
	truncate -s "${size}M" "$1.raw"
	parted -s "$1.raw" mklabel gpt mkpart primary 2048s 100%
	mkfs.ext4 -q -F -E offset=1048576 "$1.raw" "$((size - 2))M"
	qemu-img convert -f raw -O parallels "$1.raw" "$1"
	rm "$1.raw"
}

# new_descriptor FILE IMAGE SIZE_MIB: a DiskDescriptor.xml with this one image.
new_descriptor() {
	cat >"$1" <<-EOF
		<?xml version="1.0"?>
		<Parallels_disk_image>
		  <Disk_Parameters><Disk_size>$(($3 * 2048))</Disk_size><Cylinders>1</Cylinders><Heads>16</Heads><Sectors>63</Sectors>
		    <Padding>0</Padding></Disk_Parameters>
		  <StorageData><Storage><Start>0</Start><End>$(($3 * 2048))</End><Blocksize>2048</Blocksize>
		    <Image><GUID>{5fbaabe3-6958-40ff-92a7-860e329aab41}</GUID><Type>Compressed</Type><File>$2</File></Image>
		  </Storage></StorageData>
		  <Snapshots><TopGUID>{5fbaabe3-6958-40ff-92a7-860e329aab41}</TopGUID>
		    <Shot><GUID>{5fbaabe3-6958-40ff-92a7-860e329aab41}</GUID>
		      <ParentGUID>{00000000-0000-0000-0000-000000000000}</ParentGUID></Shot></Snapshots>
		</Parallels_disk_image>
	EOF
}

# The process that `list` names: the keeper, where there is one.
daemon_pid() {
	head -n 1 "run/${1:-ploop0}/pid" | cut -d' ' -f1
}

# The process that serves.
engine_pid() {
	tail -n 1 "run/${1:-ploop0}/pid" | cut -d' ' -f1
}

# kill_daemon [NAME]: keeper and engine at once, so that neither can replace the other.
kill_daemon() {
	local pids pid
	mapfile -t pids < <(cut -d' ' -f1 "run/${1:-ploop0}/pid")
	kill -STOP "${pids[@]}"
	kill -9 "${pids[@]}"
	for pid in "${pids[@]}"; do
		wait_for is_dead "$pid"
	done
}

# node_of NAME: the kernel's device behind a name. is_detached() knows it again by its number.
node_of() {
	local node
	node=$(readlink "dev/$1")
	cat "/sys/block/${node#/dev/}/diskseq" >"$BATS_TEST_TMPDIR/.diskseq-${node#/dev/}"
	echo "$node"
}

# wait_for COMMAND..: tries it for five seconds.
wait_for() {
	local i
	for ((i = 0; i < 100; i++)); do
		"$@" && return
		sleep 0.05
	done
	echo "in vain: $*" >&2
	return 1
}

is_gone() {
	[ ! -e "$1" ] && [ ! -L "$1" ]
}

# is_dead PID: gone, or only waiting to be reaped.
is_dead() {
	[ ! -e "/proc/$1" ] || grep -q '^State:	Z' "/proc/$1/status" 2>/dev/null
}

is_not_mounted() {
	if mountpoint -q "$1"; then
		echo "$1 is mounted" >&2
		return 1
	fi
}

# is_detached NODE: the loop device has no file, or somebody else's since node_of() named it.
is_detached() {
	[ ! -e "/sys/block/${1#/dev/}/loop/backing_file" ] ||
		! cmp -s "/sys/block/${1#/dev/}/diskseq" "$BATS_TEST_TMPDIR/.diskseq-${1#/dev/}"
}

# nothing_left: no device, name, run directory or daemon.
nothing_left() {
	local names=(run/ploop*) nodes=(dev/*)
	[ ! -e "${names[0]}" ] || { echo "left: ${names[*]}" >&2; return 1; }
	[ ! -L "${nodes[0]}" ] || { echo "left: ${nodes[*]}" >&2; return 1; }
	if grep " $PWD/" /proc/self/mountinfo >&2; then return 1; fi
}
