#!/bin/sh
# Secrets from files: of NAME_FILE=/run/secrets/x, NAME becomes what the file holds. Then the command. Files elsewhere are not read:
# SSL_CERT_FILE, AWS_WEB_IDENTITY_TOKEN_FILE and their like mean something else.
set -eu
for name in $(env | sed -n 's/^\([A-Za-z_][A-Za-z0-9_]*\)_FILE=.*/\1/p'); do
  eval "file=\${${name}_FILE-}"
  case "$file" in
    "${SECRETS_DIR:-/run/secrets}"/*) ;;
    *) continue ;;
  esac
  if [ ! -r "$file" ]; then
    echo "${name}_FILE names $file, which cannot be read" >&2
    exit 2
  fi
  value=$(cat "$file")
  export "$name=$value"
done
exec "$@"
