"""The command `mle`: one file per command group, gcloud's words and outputs.

In: a command line. Out: HTTP requests through `enginehouse.sdk`, text on stdout (results) and stderr (what goes on).
`tree` holds all commands; a group's file is imported only when one of its commands runs, and what is slow to import
(rich, yaml, the SDK) only where it is used, so that `mle --help` answers at once.
"""
