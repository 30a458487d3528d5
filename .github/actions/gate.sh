#!/usr/bin/env bash
# Is this revision slower than the one it branched off?  Runs `backprop-bench gate` in the repository it is called in.
#
#   BASE                  what to compare with; empty: the merge base (below)
#   BASE_REF, BASE_SHA    of a pull request: the branch it goes to, and its tip
#   DEFAULT_BRANCH        without a pull request, the merge base is with this branch
#   ALLOW, PROFILE, IMPLS, CELLS, BUDGET   options of the gate; empty: its own defaults
#   IMPL                  one's own implementations, file.py:Class or module:Class, separated by blanks
#   FAIL_ON_CANNOT_TELL   true: "cannot tell" fails; else it is a warning
#
# Exit code: that of the gate (0 nothing slower, 1 slower, 2 unusable input, 4 cannot tell, 130 interrupted), but 0 for 4
# unless FAIL_ON_CANNOT_TELL.  Outputs: verdict, exit-code (always the gate's), base, head, markdown, json, directory.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

refuse() {
  printf 'error: %s\n' "$1" >&2
  return 2
}

is_commit() {
  git rev-parse --verify --quiet --end-of-options "$1^{commit}"
}

# The branch to meet, as this checkout knows it.  A pull request's event may hold an older tip than the branch has.
target() {
  is_commit "refs/remotes/origin/$branch" || { [[ -n ${BASE_SHA:-} ]] && is_commit "$BASE_SHA"; }
}

# The merge base needs the commits between: fetch what the checkout lacks.
complete() {
  if [[ $(git rev-parse --is-shallow-repository) == true ]]; then
    git fetch --quiet --no-tags --unshallow origin || true
  fi
  target >/dev/null || git fetch --quiet --no-tags origin "+refs/heads/$branch:refs/remotes/origin/$branch" || true
}

# Of a pull request's head, and of its merge with the branch it goes to (which is what actions/checkout takes by default),
# the merge base with that branch leaves exactly what the pull request changes.
merge_base() {
  local branch=${BASE_REF:-${DEFAULT_BRANCH:-main}} met base
  complete
  { met=$(target) && base=$(git merge-base HEAD "$met"); } ||
    refuse "no common commit of HEAD and $branch is known here; does actions/checkout have fetch-depth: 0?" || return
  if [[ $base != "$(git rev-parse HEAD)" ]]; then
    printf '%s\n' "$base"
  else # on the branch itself: what its last commit changed
    is_commit "HEAD^" || refuse "HEAD has no parent to compare with; give a base"
  fi
}

base_revision() {
  if [[ -z ${BASE:-} ]]; then
    merge_base
    return
  fi
  is_commit "$BASE" || is_commit "refs/remotes/origin/$BASE" ||
    refuse "base '$BASE' is no commit, branch or tag here; does actions/checkout have fetch-depth: 0?"
}

# A verdict without its file is none: Python, too, ends with 1 when it breaks off.
verdict_of() {
  case $1 in
    0 | 1 | 4) [[ -s $out/gate.json ]] || { echo failed && return; } ;;
  esac
  case $1 in
    0) echo ok ;;
    1) echo slower ;;
    2) echo unusable-input ;;
    4) echo cannot-tell ;;
    130) echo interrupted ;;
    *) echo failed ;;
  esac
}

# Where the gate wrote no table: what it said last.
explain() {
  [[ -s $out/gate.md ]] && return
  {
    printf '### backprop-bench gate: %s\n\n' "${verdict//-/ }"
    tail -n 20 "$out/errors" | sed 's/^/    /'
  } >"$out/gate.md"
}

announce() {
  local last versus="${head:0:12} against ${base:0:12}"
  last=$(last_words "$out/errors")
  case $verdict in
    ok) ;;
    slower) annotate error "slower" "$versus: slower by more than is allowed; the table is in the job's summary" ;;
    cannot-tell) annotate warning "cannot tell" "$versus: too noisy to tell; give it more budget or a quieter machine" ;;
    unusable-input) annotate error "unusable input" "$last" ;;
    interrupted) annotate error "interrupted" "$versus: the gate was interrupted" ;;
    *) annotate error "failed" "$versus: the gate broke off with exit code $code: $last" ;;
  esac
}

out=$(fresh_directory)
code=0 base='' head=''
: >"$out/errors"
head=$(told "$out/errors" git rev-parse HEAD) || code=2
[[ $code != 0 ]] || base=$(told "$out/errors" base_revision) || code=2
if [[ $code == 0 ]]; then
  arguments=(gate "$base" "$head" "--out=$out/run" "--markdown=$out/gate.md" "--json=$out/gate.json")
  option allow "${ALLOW:-}"
  option profile "${PROFILE:-}"
  option impls "${IMPLS:-}"
  options impl "${IMPL:-}"
  option cells "${CELLS:-}"
  option budget "${BUDGET:-}"
  told "$out/errors" backprop-bench "${arguments[@]}" || code=$?
fi

verdict=$(verdict_of "$code")
explain
announce
summarise "$out/gate.md"
output verdict "$verdict"
output exit-code "$code"
output base "$base"
output head "$head"
output directory "$out"
output markdown "$out/gate.md"
[[ ! -s $out/gate.json ]] || output json "$out/gate.json"

case $verdict in
  cannot-tell) [[ ${FAIL_ON_CANNOT_TELL:-false} != true ]] || exit "$code" ;;
  failed) exit "$((code == 0 ? 1 : code))" ;;
  *) exit "$code" ;;
esac
