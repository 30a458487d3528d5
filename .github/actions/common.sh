# shellcheck shell=bash
# What the action's scripts share.  Sourced, never run.

# annotate LEVEL TITLE MESSAGE: an error, warning or notice on the run's page, escaped as workflow commands want it.
annotate() {
  local message=${3//'%'/'%25'}
  message=${message//$'\r'/'%0D'}
  message=${message//$'\n'/'%0A'}
  printf '::%s title=%s::%s\n' "$1" "$2" "$message"
}

# output NAME VALUE: an output of the step; the value is one line.
output() {
  printf '%s=%s\n' "$1" "$2" >>"${GITHUB_OUTPUT:-/dev/null}"
}

# whole_lines BYTES FILE: as many lines of a file as fit.  GitHub drops a summary over 1 MiB and a comment over 64 KiB.
whole_lines() {
  LC_ALL=C awk -v most="$1" '
    { size += length($0) + 1 }
    size > most { print ""; print "… the rest is in the files of the run."; exit }
    { print }
  ' "$2"
}

# summarise FILE: append Markdown to the job summary.
summarise() {
  whole_lines 900000 "$1" >>"${GITHUB_STEP_SUMMARY:-/dev/null}"
}

# told ERRORS COMMAND…: run a command; what it says on standard error goes to the log and to the file ERRORS.
# Returns the command's own exit code.
told() {
  local errors=$1 codes
  shift
  {
    "$@" 2>&1 1>&3 3>&- | tee "$errors" >&2
    codes=("${PIPESTATUS[@]}")
  } 3>&1
  return "${codes[0]}"
}

# last_words ERRORS: the last line that says something, without the frame that the command line draws around usage errors.
last_words() {
  sed -e 's/^│ *//' -e 's/ *│$//' -e 's/^error: //' "$1" | grep -a '[[:alnum:]]' | tail -n 1 || true
}

# option NAME VALUE: add --NAME=VALUE to the array `arguments`, unless the value is empty.
option() {
  [[ -z $2 ]] || arguments+=("--$1=$2")
}

# fresh_directory: where this step's files go.
fresh_directory() {
  mktemp -d "${RUNNER_TEMP:-${TMPDIR:-/tmp}}/backprop-bench.XXXXXX"
}

# options NAME VALUES: the same for every word of VALUES.
options() {
  local value values
  read -r -d '' -a values <<<"$2" || true
  for value in ${values[@]+"${values[@]}"}; do
    option "$1" "$value"
  done
}
