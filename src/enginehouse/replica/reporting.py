"""`enginehouse.sdk.report`, as trainers see it.

One file, standard library only, good for Python 2.7 and 3.6 to current: `replica.environment` puts a copy of it on
the path of every training process, since the engine itself is not installed in runtimes.
"""

import json
import os
import time


def report(metric, value, step=0):
    # type: (str, float, int) -> None
    """Tell the value of a metric at a training step, as often as there is one; outside of a trial it does nothing.

    Each report is one line, in the form of cloudml-hypertune, at the end of the file that CLOUD_ML_HP_METRIC_FILE
    names. It is written in one step, so that several processes may report and a kill loses none that returned.

    Args:
        metric: its tag, such as the job's hyperparameterMetricTag.
        value: a number, NaN and infinity among them.
        step: the global step, a whole number.
    """
    path = os.environ.get("CLOUD_ML_HP_METRIC_FILE")
    if not path:
        return
    line = {
        "checkpoint_path": "",
        "global_step": str(int(step)),
        "timestamp": time.time(),
        "trial": os.environ.get("CLOUD_ML_TRIAL_ID", "0"),
        metric: repr(float(value)),
    }
    data = (json.dumps(line, sort_keys=True) + "\n").encode("ascii")
    try:
        os.makedirs(os.path.dirname(path))
    except OSError:  # it is there, or the next line tells why not
        pass
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    try:
        os.write(descriptor, data)
    finally:
        os.close(descriptor)
