"""The forward proxy that lets unmodified clients of Google's APIs find the engine.

    client ─→ proxy ─→ connection ─┬─ ours ──→ (ca: TLS) ─→ http1 ─→ the engine's ASGI application
                                   └─ others ─→ forward ─→ upstream ─→ the origin, or another proxy

`stream` has a connection's bytes, `head` and `body` read HTTP/1.1 from them, `http1` turns requests into ASGI,
`hosts` says which are ours, `ca` and `trust` make the certificates, and `limits` tells what one client may use.
`environment`, `credentials` and `shells` wire a shell or a process to it. Import the modules; this package imports
none, since `mle` must start quickly.
"""
