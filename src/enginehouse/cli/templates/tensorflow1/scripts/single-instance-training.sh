# Train on one machine and follow the log.
export JOB_NAME=iris_`date '+%Y%m%d_%H%M%S'`
export GCS_JOB_DIR=gs://iris-dataset/jobs/$JOB_NAME

gcloud ai-platform jobs submit training $JOB_NAME \
  --stream-logs \
  --runtime-version 1.8 \
  --job-dir $GCS_JOB_DIR \
  --module-name trainer.task \
  --package-path trainer/ \
  --region us-central1 \
  -- \
  --train-files gs://iris-dataset/train_data.csv \
  --eval-files gs://iris-dataset/test_data.csv \
  --train-steps 5000 \
  --eval-steps 100
