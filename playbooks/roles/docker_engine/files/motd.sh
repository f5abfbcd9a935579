#!/bin/sh
# Managed by labctl: changes are lost at the next converge.
cat <<'labctl-end'

Docker: you are in group docker, so it works without sudo. Whoever may talk to Docker is root on
this guest: a container can mount / and change anything in it. Run only images that you trust.
Published ports listen on 127.0.0.1 of the guest; reach them with ssh -L PORT:127.0.0.1:PORT.
labctl-end
