"""The way of a job: validate → plan → lifecycle (state table) → queue → reconciler → result.

`service.JobService` is what the API calls; `reconciler.JobReconciler` is what makes jobs go.
"""
