"""Buckets and objects by URI: the contract (`base`) and the store in a local directory (`local`)."""
