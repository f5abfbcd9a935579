set -u
if ! rules=$(nft list chain inet labctl input 2>&1); then
    echo "the firewall's table is not loaded: $(head -n 1 <<<"$rules")"
    exit 1
fi
if ! grep -q 'hook input priority filter; policy drop;' <<<"$rules"; then
    echo "the firewall does not drop what no rule lets in"
    exit 1
fi
if ! systemctl -q is-enabled labctl-firewall.service; then
    echo "the firewall is loaded, but would be gone after a restart: labctl-firewall.service is not enabled"
    exit 1
fi
# What the file says, as the kernel would print it: a rule added or taken by hand shows.
wanted=$(unshare -n sh -c "nft -f /etc/labctl-firewall.nft && nft list chain inet labctl input") || wanted=
if [ "$wanted" != "$rules" ]; then
    echo "the loaded rules differ from /etc/labctl-firewall.nft"
    exit 1
fi
ports=$(grep -oE 'dport [0-9]+' <<<"$(grep tcp <<<"$rules")" | awk '{print $2}' | sort -u | paste -sd ' ')
echo "loaded and enabled, everything dropped but replies, ICMP, containers and TCP port ${ports:-none}"
