"""Serving: which model server answers a prediction.

A request's bytes come in through `router.PredictApp`, which finds the version and hands them to `pool.ServerPool`.
The pool keeps one `server.VersionServer` per version, which starts the version's model server process on demand
(`process.ModelProcess`), restarts it after a crash and stops it when nobody asks. The bytes are parsed once, in the
model server.
"""
