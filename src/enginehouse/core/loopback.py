"""What counts as this machine itself."""

LOOPBACK_HOSTS = frozenset({"127.0.0.1", "::1", "localhost"})
"""Addresses to listen on that no other machine reaches."""

LOOPBACK_PEERS = frozenset({"127.0.0.1", "::1", "::ffff:127.0.0.1"})
"""Addresses that clients of this machine come from."""
