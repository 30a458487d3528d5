#!/usr/bin/env bash
# Measure this revision, add it to the history, draw the history's page.
#
#   HISTORY_DB               the database; a leading ~/ is the home directory
#   PROFILE, IMPLS, BUDGET   options of the run; empty: its own defaults
#   IMPL                     one's own implementations, file.py:Class or module:Class, separated by blanks
#   REPO_URL                 the page's links to commits
#
# Exit code: that of the first command that fails; a run with failed cells (3) is added all the same, and fails at the end.
# Outputs: exit-code, added (true once the database holds the run), page, directory.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

finish() {
  [[ $code == 0 ]] || annotate error "history" "exit code $code: $(last_words "$out/errors")"
  output exit-code "$code"
  exit "$code"
}

out=$(fresh_directory)
code=0
database=${HISTORY_DB/#\~\//$HOME/}
mkdir -p "$(dirname "$database")"
[[ -s $database ]] || annotate notice "history" "no history at $HISTORY_DB: a new one begins"
: >"$out/errors"
output directory "$out"

arguments=(run "--out=$out/run")
option profile "${PROFILE:-}"
option impls "${IMPLS:-}"
options impl "${IMPL:-}"
option budget "${BUDGET:-}"
told "$out/errors" backprop-bench "${arguments[@]}" || code=$?
[[ $code == 0 || $code == 3 ]] || finish
added=0
told "$out/errors" backprop-bench history add "$out/run" "--db=$database" || added=$?
[[ $added == 0 ]] || { code=$added && finish; }
output added true
cp "$database" "$out/history.db"
drawn=0
told "$out/errors" backprop-bench history page "--db=$database" "--out=$out/history.html" "--repo-url=$REPO_URL" || drawn=$?
[[ $drawn == 0 ]] || { code=$drawn && finish; }
output page "$out/history.html"
printf '### backprop-bench history\n\n%s was added; the page and the database are in the files of the run.\n' \
  "$(git rev-parse --short HEAD)" >"$out/summary.md"
summarise "$out/summary.md"
[[ $code == 0 ]] || echo "some cells failed; the others were added" >"$out/errors"
finish
