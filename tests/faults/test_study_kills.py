"""kill -9 of the engine while clients run the trials of a study.

Slow because it is about real processes: six engines.
"""

import threading
import time
from http.client import HTTPException
from pathlib import Path
from typing import Any

import pytest
from google.auth.credentials import AnonymousCredentials
from googleapiclient import discovery
from googleapiclient.http import HttpRequest
from httplib2.error import HttpLib2Error

from enginehouse.testing.engine import EngineProcess

KILLS = 5
TRIALS = 40
STEPS = 3
LOCATION = "projects/demo/locations/us-central1"
STUDY = {
    "metrics": [{"metric": "score", "goal": "MAXIMIZE"}],
    "parameters": [{"parameter": "x", "type": "DOUBLE", "doubleValueSpec": {"minValue": 0, "maxValue": 1}}],
    "algorithm": "RANDOM_SEARCH",
}


def studies_at(url: str) -> Any:
    ml = discovery.build("ml", "v1", client_options={"api_endpoint": url}, credentials=AnonymousCredentials())
    return ml.projects().locations().studies()


class Worker(threading.Thread):
    """A client that runs trials and asks again until it has an answer."""

    def __init__(self, url: str, client_id: str) -> None:
        super().__init__()
        self.trials = studies_at(url).trials()
        self.client_id = client_id
        self.told: dict[str, tuple[float, list[float]]] = {}
        self.repeats = 0

    def run(self) -> None:
        for _ in range(TRIALS // 2):
            asked = {"suggestionCount": 1, "clientId": self.client_id}
            operation = self.until_answered(self.trials.suggest(parent=f"{LOCATION}/studies/s", body=asked))
            (trial,) = operation["response"]["trials"]
            x = trial["parameters"][0]["floatValue"]
            values = [x * step for step in range(1, STEPS + 1)]
            for step, value in enumerate(values, 1):
                measurement = {"stepCount": str(step), "metrics": [{"metric": "score", "value": value}]}
                report = self.trials.addMeasurement(name=trial["name"], body={"measurement": measurement})
                self.until_answered(report)
            self.until_answered(self.trials.complete(name=trial["name"], body={}))
            self.told[trial["name"]] = (x, values)

    def until_answered(self, call: HttpRequest) -> Any:
        while True:
            try:
                return call.execute()
            except (OSError, HttpLib2Error, HTTPException):
                self.repeats += 1
                time.sleep(0.02)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_no_measurement_and_no_suggestion_is_lost_or_repeated(tmp_path: Path) -> None:
    engine = EngineProcess(tmp_path / "data").start()
    try:
        workers = [Worker(engine.url, f"worker-{number}") for number in range(2)]
        studies = studies_at(engine.url)
        studies.create(parent=LOCATION, studyId="s", body={"studyConfig": STUDY}).execute()
        for worker in workers:
            worker.start()
        for _ in range(KILLS):
            time.sleep(0.2)
            engine.kill()
            engine.start()
        for worker in workers:
            worker.join(timeout=120)
        told = workers[0].told | workers[1].told
        assert len(told) == TRIALS
        kept = studies.trials().list(parent=f"{LOCATION}/studies/s").execute()["trials"]
        assert {trial["name"]: seen(trial) for trial in kept} == told
        assert all(trial["finalMeasurement"] == trial["measurements"][-1] for trial in kept)
        assert sum(worker.repeats for worker in workers) > 0
    finally:
        engine.kill()


def seen(trial: dict[str, Any]) -> tuple[float, list[float]]:
    values = [measurement["metrics"][0].get("value", 0.0) for measurement in trial["measurements"]]
    return trial["parameters"][0]["floatValue"], values
