# Deploy a trained model: the one in MODEL_BINARIES, or the newest export below gs://iris-dataset/jobs.
export MODEL_BINARIES=${MODEL_BINARIES:-`gsutil ls gs://iris-dataset/jobs/*/export/iris/ | grep '/[0-9]*/$' | sort | tail -n 1`}

gcloud ai-platform models create iris --regions us-central1
gcloud ai-platform versions create v1 --model iris --origin $MODEL_BINARIES --runtime-version 1.8
