#!/usr/bin/env bash
# Train on one machine and follow the log. BUCKET names the bucket that holds the data.
set -euo pipefail
cd "$(dirname "$0")/.."

BUCKET="${BUCKET:-iris-xgboost}"
JOB_NAME="iris_$(date '+%Y%m%d_%H%M%S')"

mle jobs submit training "$JOB_NAME" \
  --stream-logs \
  --scale-tier BASIC \
  --runtime-version xgboost-3.2 \
  --job-dir "gs://$BUCKET/jobs/$JOB_NAME" \
  --module-name trainer.model \
  --package-path trainer/ \
  --region us-central1 \
  -- \
  --train-file "gs://$BUCKET/train_data.csv" \
  --eval-file "gs://$BUCKET/test_data.csv"
