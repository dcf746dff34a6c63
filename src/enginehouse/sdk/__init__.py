"""The thin Python client of an engine: what `mle` is made of, and what a script may use in its place.

    from enginehouse.sdk.client import connect

    client = connect()                       # the engine of ~/.enginehouse, or of ENGINEHOUSE_URL
    client.jobs.get("iris_20260131_120000")["state"]

and, in a trainer, the way to tell a metric:

    from enginehouse import sdk

    sdk.report("accuracy", 0.97, step=1000)

In: an engine's address. Out: HTTP requests to it, plain dictionaries of the ml v1 API, and the error tree of
`enginehouse.core.errors`. Called by: `cli`, `ops`, user scripts. Standard library only, so that it starts quickly.
"""

from enginehouse.replica.reporting import report

__all__ = ["report"]
