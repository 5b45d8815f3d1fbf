#!/usr/bin/env bash
# Puts packages into a channel, whole or not at all; see --help.
set -euo pipefail

if [[ " $* " == *" --help "* ]]; then
    cat <<'HELP'
Usage: ci/publish.sh [--from DIR] [--key KEY] CHANNEL

Adds the packages of dist/channel to CHANNEL: a folder that any web server can serve, or one of
  anaconda:OWNER[/LABEL]  prefix:ADDRESS#CHANNEL    cloudsmith:OWNER/REPOSITORY
  quetz:ADDRESS#CHANNEL   artifactory:ADDRESS#CHANNEL
whose credentials are in the environment: ANACONDA_API_KEY, PREFIX_API_KEY, CLOUDSMITH_API_KEY,
QUETZ_API_KEY, ARTIFACTORY_TOKEN.

In a folder, packages come first, and one rename replaces index, manifest and signature. It may be
killed at any moment, and run again. A published file is never replaced by a different one, and a
build that breaks the ABI of the last one of its version is refused.

  --key KEY    the private OpenSSH key that signs the folder's manifest (ssh-keygen -t ed25519)
  --from DIR   publish the packages of this channel instead
HELP
    exit
fi

# shellcheck source=ci/tools.sh
NEEDS="abidiff=abigail-tools ssh-keygen=openssh-client" source "$(dirname "${BASH_SOURCE[0]}")/tools.sh"
exec "$PYTHON" -m acl_ci.publish "$@"
