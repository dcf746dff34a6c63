"""Who may do what: the policies of jobs and models, kept and answered in IAM's own shape."""
