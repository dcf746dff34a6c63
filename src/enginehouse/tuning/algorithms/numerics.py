"""numpy and scipy, loaded with one thread for each: the matrices are small, and a trainer wants the cores.

Imported by the algorithms that need them, which the catalogue imports only when a study asks for one.
"""

from __future__ import annotations

import os

_THREADS = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")
# The libraries read these once, when they are loaded. They are put back since trainers inherit the environment.
_before = {name: os.environ.get(name) for name in _THREADS}
os.environ.update(dict.fromkeys(_THREADS, "1"))
try:
    import numpy
    from scipy import linalg, optimize, special, stats
finally:
    for _name, _value in _before.items():
        if _value is None:
            os.environ.pop(_name, None)
        else:
            os.environ[_name] = _value

__all__ = ["linalg", "numpy", "optimize", "special", "stats"]
