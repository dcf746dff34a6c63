"""`python -m enginehouse.cli`: the same as `mle`, for those who know only the interpreter."""

from enginehouse.cli.main import main

main()
