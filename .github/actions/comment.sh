#!/usr/bin/env bash
# Put a Markdown file under a pull request: in the comment it has already, or in a new one.
#
#   MARKDOWN   the file        PULL_REQUEST   its number        GH_TOKEN   may write to pull requests
#   KEY        tells several comments under one pull request apart
#
# Never fails: the token of a pull request from a fork may only read, and a verdict must not hang on a comment.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

# Our comment's number, or nothing: the first that this token's owner wrote and that begins with the mark.
# The query's dollars are GraphQL's.
# shellcheck disable=SC2016
ours() {
  gh api graphql --paginate -f owner="${GITHUB_REPOSITORY%%/*}" -f name="${GITHUB_REPOSITORY#*/}" \
    -F number="$PULL_REQUEST" -f query='
      query($owner: String!, $name: String!, $number: Int!, $endCursor: String) {
        repository(owner: $owner, name: $name) {
          pullRequest(number: $number) {
            comments(first: 100, after: $endCursor) {
              nodes { databaseId viewerDidAuthor body }
              pageInfo { hasNextPage endCursor }
            }
          }
        }
      }' --jq '.data.repository.pullRequest.comments.nodes[]
        | select(.viewerDidAuthor and (.body | startswith("'"$mark"'"))) | .databaseId' | sed -n 1p
}

post() {
  local id
  id=$(ours) || return
  if [[ -n $id ]]; then
    gh api --silent --method PATCH "repos/$GITHUB_REPOSITORY/issues/comments/$id" -F "body=@$body"
  else
    gh api --silent --method POST "repos/$GITHUB_REPOSITORY/issues/$PULL_REQUEST/comments" -F "body=@$body"
  fi
}

key=${KEY:-gate}
mark="<!-- backprop-bench: ${key//[^A-Za-z0-9._-]/-} -->"
body=$(fresh_directory)/comment.md
{
  printf '%s\n' "$mark"
  whole_lines 60000 "$MARKDOWN"
} >"$body"

if ! command -v gh >/dev/null; then
  annotate notice "comment" "gh is not on this runner: the table is in the job's summary alone"
elif ! post; then
  annotate notice "comment" "this token may not comment (a fork's may only read): the table is in the job's summary"
fi
