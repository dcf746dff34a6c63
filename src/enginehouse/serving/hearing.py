"""Brings what model servers tell of requests on lent connections to the table and the access log.

In: `lending.Lender.take_told`. Out: `recording.RequestRecorder` and `logs.PredictionLogs`, as if the router had seen
the requests; both call `hear` before they write.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from enginehouse.modelserver.telling import Told
from enginehouse.serving.lending import Lender, Telling
from enginehouse.serving.logs import Access
from enginehouse.serving.recording import Row

_log = logging.getLogger(__name__)


class Hearing:
    """Listens to the model servers of versions that are sampled or have an access log. Of any thread.

    Args:
        keep: takes the row of a sampled request.
        log_access: takes what the access log tells of a request.
    """

    def __init__(self, keep: Callable[[Row], None], log_access: Callable[[Access], None]) -> None:
        self._keep = keep
        self._log_access = log_access
        self._n_untold: dict[Lender, int] = {}
        self._hearing = threading.Lock()

    def listen_to(self, lender: Lender) -> None:
        """Take what its model server tells, until its end."""
        self._n_untold.setdefault(lender, 0)

    def hear(self) -> None:
        """Pass on all that was told since the last call."""
        with self._hearing:
            for lender, n_before in list(self._n_untold.items()):
                is_last_time = lender.has_ended
                for telling, told in lender.take_told():
                    self._pass_on(telling, told)
                n_untold = self._n_untold[lender] = lender.n_untold
                if n_untold > n_before:
                    _log.warning("%d requests were not logged: they came too fast to be read", n_untold - n_before)
                if is_last_time:
                    del self._n_untold[lender]

    def _pass_on(self, telling: Telling, told: Told) -> None:
        version, name = telling.version, telling.version.name
        if version.sample is not None and told.request:
            time_us = told.time_ns // 1000
            table = version.sample.table
            self._keep(Row(table, name.model_id, name.version_id, time_us, told.request, told.answer))
        if version.logs_access:
            sizes = told.request_bytes, told.response_bytes
            latency_s = told.took_ns / 1e9
            self._log_access(Access(version.uid, told.time_ns, "POST", telling.path, told.status, *sizes, latency_s))
