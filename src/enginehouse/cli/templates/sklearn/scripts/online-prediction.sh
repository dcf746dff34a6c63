#!/usr/bin/env bash
# Ask the deployed model about the flowers in test-sample.json.
set -euo pipefail
cd "$(dirname "$0")/.."

mle predict --model iris_sklearn --version "${VERSION:-v1}" --json-instances ./test-sample.json
