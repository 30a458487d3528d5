#!/usr/bin/env bash
# What the action is to do, from MODE (auto, gate or history) and the event's name.  A push adds to the history, anything
# else is gated.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

case $MODE in
  gate | history) output mode "$MODE" ;;
  auto) if [[ ${GITHUB_EVENT_NAME:-} == push ]]; then output mode history; else output mode gate; fi ;;
  *)
    annotate error "backprop-bench" "mode is '$MODE'; it must be auto, gate or history"
    exit 2
    ;;
esac
