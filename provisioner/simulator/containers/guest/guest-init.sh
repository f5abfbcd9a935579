#!/bin/sh
# PID 1 until systemd takes over: turns a fresh container into something that boots like a machine.

# systemd and a nested Docker write cgroups; Docker mounts them read-only (one on v2, many on v1).
while read -r _ target type _; do
    case "$type:$target" in
        cgroup:/sys/fs/cgroup* | cgroup2:/sys/fs/cgroup*) mount -o remount,rw,bind "$target" ;;
    esac
done < /proc/self/mounts

# The sysctls of our own network namespace, and no others.
mount --bind /proc/sys/net /proc/sys/net && mount -o remount,rw,bind /proc/sys/net
mount -o remount,size=50% /dev/shm

# Ordinary files, so that they can be replaced atomically and outlive a power cycle. A new container
# on a snapshot's layers starts with empty ones: take what the guest tools kept.
for file in resolv.conf hosts hostname; do
    umount "/etc/$file"
    [ -s "/etc/$file" ] || cp -a --remove-destination "/var/lib/guest-tools/$file" /etc/
done
hostname -F /etc/hostname

# "nic ADDRESS MAC" and "nameserver ADDRESS" lines.
settings=$(/usr/bin/vmware-rpctool simulator.boot)
echo 1 > /proc/sys/net/ipv4/conf/all/arp_notify # neighbours may know the container's own MAC already
echo "$settings" | while read -r word address mac; do
    [ "$word" = nic ] || continue
    device=$(ip -o -4 address show to "$address" | awk '{ sub(/@.*/, "", $2); print $2; exit }')
    [ -z "$device" ] || ip link set dev "$device" address "$mac"
done
if [ ! -L /etc/resolv.conf ] && ! grep -Eq '^nameserver +([^1]|1[^2]|12[^7])' /etc/resolv.conf; then
    echo "$settings" | grep '^nameserver ' > /etc/resolv.conf
fi

exec /sbin/init
