# Ask the deployed model about a whole file in the bucket.
export JOB_NAME=iris_prediction_`date '+%Y%m%d_%H%M%S'`
export GCS_JOB_DIR=gs://iris-dataset/jobs/$JOB_NAME

gcloud ai-platform jobs submit prediction $JOB_NAME \
  --model iris \
  --version v1 \
  --data-format TEXT \
  --region us-central1 \
  --input-paths gs://iris-dataset/hold_out_test.csv \
  --output-path $GCS_JOB_DIR/predictions
gcloud ai-platform jobs stream-logs $JOB_NAME
gsutil cat $GCS_JOB_DIR/predictions/prediction.results-00000-of-00001
