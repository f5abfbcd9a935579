set -u
state=$(systemctl is-system-running --wait)
failed=$(systemctl --failed --plain --no-legend | awk '{print $1}' | paste -sd ' ')
init=$(cat /proc/1/comm)
if [ "$state" != running ] || [ "$init" != systemd ]; then
    echo "PID 1 is $init and the guest is $state; failed: ${failed:-no unit}"
    exit 1
fi
echo "PID 1 is $init, the guest is $state and no unit has failed ($(systemctl --version | awk 'NR == 1 {print "systemd " $2}'))"
