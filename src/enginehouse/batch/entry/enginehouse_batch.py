"""Entry of a batch prediction job's program: `python -m enginehouse_batch TASK`, by the interpreter of a runtime.

The runtime knows nothing of the engine, so this file alone lies on its path and makes the rooms around it importable
from where they are, without what else the engine has installed beside them.
"""

import sys
import types
from pathlib import Path

_PACKAGE = types.ModuleType("enginehouse")
_PACKAGE.__path__ = [str(Path(__file__).resolve().parents[2])]
sys.modules["enginehouse"] = _PACKAGE

if __name__ == "__main__":
    if sys.argv[1:2] == ["--worker"]:
        from enginehouse.batch.worker import main
    else:
        from enginehouse.batch.coordinator import main
    sys.exit(main(sys.argv[1:]))
