# Ask the deployed model about the flowers in test-sample.json.
gcloud ai-platform predict --model iris --version v1 --json-instances test-sample.json
