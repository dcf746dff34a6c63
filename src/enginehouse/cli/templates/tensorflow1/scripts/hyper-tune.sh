# Find good hyperparameters: four trials, two at a time, each on a cluster of its own.
export SCALE_TIER=STANDARD_1
export JOB_NAME=iris_`date '+%Y%m%d_%H%M%S'`
export GCS_JOB_DIR=gs://iris-dataset/jobs/$JOB_NAME
export HPTUNING_CONFIG=hptuning_config.yaml

gcloud ai-platform jobs submit training $JOB_NAME \
  --stream-logs \
  --scale-tier $SCALE_TIER \
  --runtime-version 1.8 \
  --config $HPTUNING_CONFIG \
  --job-dir $GCS_JOB_DIR \
  --module-name trainer.task \
  --package-path trainer/ \
  --region us-central1 \
  -- \
  --train-files gs://iris-dataset/train_data.csv \
  --eval-files gs://iris-dataset/test_data.csv \
  --train-steps 5000 \
  --eval-steps 100
