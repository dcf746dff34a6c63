#!/usr/bin/env bash
# Deploy a trained model. Usage: create-prediction-service.sh [MODEL_BINARIES]
# Without an argument the newest model below gs://$BUCKET/jobs is taken.
set -euo pipefail
cd "$(dirname "$0")/.."

BUCKET="${BUCKET:-iris-xgboost}"
MODEL="iris_xgboost"
VERSION="${VERSION:-v1}"

newest() {
  mle storage ls "gs://$BUCKET/jobs/iris_*/model.bst" | sort | tail -n 1
}
MODEL_BINARIES="${1:-$(dirname "$(newest)")}"

mle models describe "$MODEL" >/dev/null 2>&1 || mle models create "$MODEL" --regions=us-central1
mle versions create "$VERSION" --model "$MODEL" --origin "$MODEL_BINARIES" --config config.yaml
