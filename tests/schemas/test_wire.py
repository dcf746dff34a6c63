"""Protocol-buffer JSON: what is read, what is refused and with which path."""

import math
import subprocess
import sys

import pytest

from enginehouse.core.cases import camel_case, snake_case
from enginehouse.core.errors import InvalidArgument
from enginehouse.schemas.ml_v1 import AcceleratorConfig, Job, TrainingInput, TrainingOutput
from enginehouse.schemas.optimizer import MeasurementMetric, StudyParameterSpec
from enginehouse.schemas.wire import Int64, decode, encode, to_builtins


def test_int64_is_text_on_the_wire_and_read_either_way() -> None:
    for text in (b'{"count": "4"}', b'{"count": 4}'):
        message = decode(AcceleratorConfig, text)
        assert message.count == 4
        assert encode(message) == b'{"count":"4"}'
    assert to_builtins(AcceleratorConfig(count=Int64(2**60))) == {"count": str(2**60)}


def test_int32_and_double_stay_numbers() -> None:
    message = decode(Job, b'{"trainingInput": {"scheduling": {"priority": 7}}}')
    assert to_builtins(message) == {"trainingInput": {"scheduling": {"priority": 7}}}
    assert to_builtins(TrainingOutput(consumed_ml_units=0.25)) == {"consumedMLUnits": 0.25}


@pytest.mark.parametrize(
    ("body", "field", "words"),
    [
        (b'{"trainingInput": {"bogusField": 3}}', "training_input.bogus_field", "no such field"),
        (b'{"trainingInput": {"workerCount": "x"}}', "training_input.worker_count", "int64"),
        (b'{"trainingInput": {"workerCount": true}}', "training_input.worker_count", "int64"),
        (b'{"trainingInput": {"runtimeVersion": 1.8}}', "training_input.runtime_version", "quotes"),
        (b'{"trainingInput": {"args": ["a", 3]}}', "training_input.args[1]", "quotes"),
        (
            b'{"trainingInput": {"scaleTier": "HUGE"}}',
            "training_input.scale_tier",
            "HUGE.*: it is one of BASIC, BASIC_GPU",
        ),
        (
            b'{"state": "DONE"}',
            "state",
            "'DONE': it is one of .*SUCCEEDED",
        ),
        (
            b'{"trainingInput": {"hyperparameters": {"params": [{}, {"type": "FLOAT"}]}}}',
            "training_input.hyperparameters.params[1].type",
            "'FLOAT': it is one of CATEGORICAL, DISCRETE, DOUBLE, INTEGER[.]$",
        ),
        (b'{"labels": {"a": {}}}', "labels[...]", "str"),
        (b"[]", None, "object"),
        (b"{", None, "JSON"),
        (b"\xff", None, "JSON"),
    ],
)
def test_wrong_bodies_name_the_field(body: bytes, field: str | None, words: str) -> None:
    with pytest.raises(InvalidArgument, match=words) as error:
        decode(Job, body)
    assert error.value.field == field


@pytest.mark.parametrize("levels", [600, 100_000])
def test_a_body_that_is_nested_too_deeply_is_refused(levels: int) -> None:
    children = b'{"childParameterSpecs": [' * levels + b"]}" * levels
    with pytest.raises(InvalidArgument, match="too deeply"):
        decode(StudyParameterSpec, children)


@pytest.mark.parametrize(("text", "value"), [("NaN", math.nan), ("Infinity", math.inf), ("-Infinity", -math.inf)])
def test_numbers_that_json_lacks_are_text(text: str, value: float) -> None:
    metric = MeasurementMetric(metric="m", value=value)
    assert to_builtins(metric) == {"metric": "m", "value": text}
    again = decode(MeasurementMetric, encode(metric)).value
    assert again == value or (math.isnan(again) and math.isnan(value))


def test_null_means_not_set_and_no_body_is_an_empty_message() -> None:
    assert decode(Job, b'{"jobId": null, "labels": {"a": null}}') == Job()
    assert decode(TrainingInput, b"") == TrainingInput()


def test_snake_case() -> None:
    assert snake_case("useChiefInTfConfig") == "use_chief_in_tf_config"
    assert snake_case("already_snake.subField") == "already_snake.sub_field"


def test_camel_case() -> None:
    assert camel_case("use_chief_in_tf_config") == "useChiefInTfConfig"
    assert camel_case(snake_case("packageUris")) == "packageUris"


FIRST_USES = """
import sys, threading
from enginehouse.schemas.wire import Int64, Message, from_builtins

sys.setswitchinterval(1e-6)
for number in range(30):
    space = {"Message": Message, "Int64": Int64}
    fields = "".join(f"    part{index}: list[Part] | None = None\\n" for index in range(20))
    exec("class Part(Message):\\n    size: Int64 | None = None\\nclass Whole(Message):\\n" + fields, space)
    together = threading.Barrier(4)

    def read():
        together.wait()
        assert from_builtins(space["Whole"], {"part3": [{"size": "5"}]}).part3[0].size == 5
        print("read")

    threads = [threading.Thread(target=read) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
"""


def test_threads_may_read_a_message_of_a_class_for_the_first_time_together() -> None:
    done = subprocess.run([sys.executable, "-c", FIRST_USES], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout.count("read")) == (0, 120), done.stderr
