#!/usr/bin/env bash
# Find good hyperparameters: four trials, two at a time. BUCKET names the bucket that holds the data.
set -euo pipefail
cd "$(dirname "$0")/.."

BUCKET="${BUCKET:-iris-dataset}"
JOB_NAME="iris_$(date '+%Y%m%d_%H%M%S')"

mle jobs submit training "$JOB_NAME" \
  --stream-logs \
  --config hptuning_config.yaml \
  --runtime-version 2.21 \
  --job-dir "gs://$BUCKET/jobs/$JOB_NAME" \
  --module-name trainer.task \
  --package-path trainer/ \
  --region us-central1 \
  -- \
  --train-files "gs://$BUCKET/train_data.csv" \
  --eval-files "gs://$BUCKET/test_data.csv" \
  --train-steps 1000 \
  --eval-steps 100
mle jobs trials "$JOB_NAME"
