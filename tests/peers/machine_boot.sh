#!/bin/sh
# Makes the root of a machine out of layers and starts its first process there:
#
#     machine_boot.sh PLACE LAYERS INIT...
#
# PLACE is an empty folder, LAYERS are folders as overlayfs names them.  It is started by
# machine_keeper.py as the first process of namespaces of its own, the mount namespace among them.
# What is started sees nothing of the machine around it: neither its files nor its devices, and of
# the kernel's settings only what belongs to its namespaces.  systemd would clear /tmp and make
# itself at home in whatever it is given, so nothing is started before that was looked at.  The one
# line on standard output says that the machine is apart: before it, whoever enters is still outside.
set -eu
place=$1
layers=$2
shift 2

mount --make-rprivate /
mount -t tmpfs -o mode=0700,size=1g machine "$place"
mkdir "$place/upper" "$place/work" "$place/root"
mount -t overlay -o "lowerdir=$layers,upperdir=$place/upper,workdir=$place/work" machine \
    "$place/root"
cd "$place/root"
test -e etc/penstock-test-machine

mount -t proc -o nosuid,nodev,noexec proc proc
mount --bind proc/sys proc/sys
mount -o remount,bind,ro,nosuid,nodev,noexec proc/sys
if test -e proc/sysrq-trigger; then
    mount --bind /dev/null proc/sysrq-trigger
fi
mount -t sysfs -o ro,nosuid,nodev,noexec sysfs sys
mount -t cgroup2 -o nosuid,nodev,noexec cgroup sys/fs/cgroup
mount -t tmpfs -o mode=0755,nosuid,size=4m devices dev
mknod -m 666 dev/null c 1 3
mknod -m 666 dev/zero c 1 5
mknod -m 666 dev/full c 1 7
mknod -m 666 dev/random c 1 8
mknod -m 666 dev/urandom c 1 9
mknod -m 666 dev/tty c 5 0
mkdir dev/pts dev/shm
mount -t devpts -o newinstance,ptmxmode=0666,mode=0620,gid=5,nosuid,noexec devpts dev/pts
ln -s pts/ptmx dev/ptmx
mount -t tmpfs -o mode=1777,nosuid,nodev,size=64m shm dev/shm
mount -t tmpfs -o mode=0755,nosuid,nodev,size=64m run run
mount -t tmpfs -o mode=1777,nosuid,nodev,size=64m tmp tmp

hostname "$(cat etc/hostname)"
mkdir run/outside
pivot_root . run/outside
cd /
umount --lazy /run/outside
rmdir /run/outside
# From here on every program is the tree's own.
test -e /etc/penstock-test-machine
# Shared with the namespaces of services, as on any host: systemd hands credentials over by a mount.
mount --make-rshared /
echo apart
exec env -i container=penstock-tests PATH=/usr/sbin:/usr/bin:/sbin:/bin \
    setpriv --bounding-set=-sys_time,-sys_module,-sys_rawio,-syslog --inh-caps=-all -- "$@" \
    >/dev/null
