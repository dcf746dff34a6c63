"""HTTP only: translates between requests and the rooms below, never decides."""
