"""The permissions of ml v1, by the kind of resource that they are tested on.

Source: the IAM documentation of the original service (roles/ml.jobOwner, roles/ml.modelOwner).
"""

JOB_PERMISSIONS = frozenset(
    f"ml.jobs.{verb}" for verb in ("cancel", "create", "get", "getIamPolicy", "list", "setIamPolicy", "update")
)
MODEL_PERMISSIONS = frozenset(
    {
        *(
            f"ml.models.{verb}"
            for verb in ("create", "delete", "get", "getIamPolicy", "list", "predict", "setIamPolicy", "update")
        ),
        *(f"ml.versions.{verb}" for verb in ("create", "delete", "get", "list", "predict", "update")),
    }
)
