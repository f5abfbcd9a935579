#!/bin/sh
exec /usr/bin/python3 -IS /usr/lib/guest-tools/guest_tools.py rpc "$@"
