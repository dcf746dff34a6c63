"""The metadata store: jobs, models, versions, operations, events and leases, and nothing else knows SQL."""
