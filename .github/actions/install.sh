#!/usr/bin/env bash
# The suite, in an environment of its own: EXTRAS (of torch, jax, peers, all), PIP_ARGS (further arguments of pip).
# GITHUB_ACTION_PATH is where this repository lies on the runner.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

venv=$(fresh_directory)/venv
python=$(command -v python || command -v python3)
read -r -a pip_args <<<"${PIP_ARGS:-}"
"$python" -m venv "$venv"
"$venv/bin/python" -m pip install --quiet --disable-pip-version-check ${pip_args[@]+"${pip_args[@]}"} \
  -c "$GITHUB_ACTION_PATH/constraints.txt" -e "$GITHUB_ACTION_PATH${EXTRAS:+[$EXTRAS]}"
printf '%s\n' "$venv/bin" >>"${GITHUB_PATH:-/dev/null}"
