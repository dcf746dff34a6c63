"""Filters as gcloud, the console and people write them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enginehouse.core.errors import InvalidArgument
from enginehouse.core.filters import ExactText, lookup_in, parse_filter

JOB = {
    "jobId": "census_1",
    "state": "FAILED",
    "createTime": "2026-01-01T10:00:00Z",
    "labels": {"team": "red", "ml.googleapis.com/task_name": "master-replica-0"},
    "trainingInput": {"scaleTier": "BASIC", "args": ["--a", "b"], "workerCount": "10"},
    "jobPosition": -3,
}


@pytest.mark.parametrize(
    ("text", "passes"),
    [
        ("", True),
        ("  ", True),
        ("jobId:census*", True),
        ("jobId:rnn*", False),
        ("job_id:census*", True),
        ("jobId:census", False),
        ("jobId:*", True),
        ("nothing:*", False),
        ("jobId:census* AND state:FAILED", True),
        ("jobId:census* state:SUCCEEDED", False),
        ("jobId:rnn* OR state=failed", True),
        ("state=(RUNNING OR FAILED)", True),
        ("state=(RUNNING OR QUEUED)", False),
        ("NOT state=FAILED", False),
        ("-state=FAILED", False),
        ("state!=FAILED", False),
        ("nothing!=x", True),
        ("(jobId:rnn* OR jobId:census*) AND (state:FAILED)", True),
        ("jobId:rnn* OR jobId:census* AND state:SUCCEEDED", False),
        ('labels.team="red"', True),
        ("labels:team", True),
        ('labels."ml.googleapis.com/task_name"="master-replica-0"', True),
        ("trainingInput.scaleTier=BASIC", True),
        ("trainingInput.args:b", True),
        ("trainingInput.workerCount>9", True),
        ("trainingInput.workerCount<9", False),
        ("jobPosition<-2", True),
        ("jobPosition=-3", True),
        ('createTime>="2026-01-01T09:00:00.000000000Z" AND createTime<"2026-01-01T13:00:00+0200"', True),
        ('createTime>"2026-01-01T10:00:00Z"', False),
        ('jobId=~"^cen.*_[0-9]$"', True),
        ('jobId!~"^cen"', False),
        ('"jobId"="census_1"', True),
    ],
)
def test_filters(text: str, passes: bool) -> None:
    assert parse_filter(text).matches(lookup_in(JOB)) is passes


@pytest.mark.parametrize(
    "text",
    ["jobId", "jobId:", ":x", "(a:b", "a:b)", "a:b AND", "OR a:b", '"open', "a=(b c)", 'a=~"("', "(" * 99, "a::b"],
)
def test_what_can_not_be_read_is_refused(text: str) -> None:
    with pytest.raises(InvalidArgument, match="jobId:census") as error:
        parse_filter(text)
    assert error.value.field == "filter"


@given(st.text(alphabet='ab:="()-!<>~*. \\ANDORNOT', max_size=60))
def test_nothing_breaks_the_parser(text: str) -> None:
    try:
        parse_filter(text).matches(lookup_in(JOB))
    except InvalidArgument:
        pass


@given(st.text(min_size=1, max_size=30))
def test_quoted_text_is_found_again(text: str) -> None:
    quoted = '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
    assert parse_filter(f"field={quoted}").matches(lookup_in({"field": text}))


def test_a_filter_tells_where_to_look() -> None:
    parsed = parse_filter(
        '(resource.type="ml_job" OR resource.type="cloudml_job") AND resource.labels.job_id="j1" '
        'AND timestamp>="2026-01-01T00:00:00Z" AND (labels.a="1" OR severity="ERROR")'
    )
    assert parsed.values == {
        "resource.type": {"ml_job", "cloudml_job"},
        "resource.labels.job_id": {"j1"},
    }
    assert parsed.since_ns == 1_767_225_600_000_000_000
    assert parse_filter('job="a" OR x="b"').values == {}
    assert parse_filter('NOT job="a"').values == {}
    assert parse_filter("job:a*").values == {}
    either = parse_filter('timestamp>"2026-01-01T00:00:00Z" OR (timestamp="2025-01-01T00:00:00Z" AND insertId>"1")')
    assert either.since_ns == 0


def test_ids_compare_as_text() -> None:
    found = lookup_in({"insertId": ExactText("00000012e5")})
    assert parse_filter('insertId>"00000012e4"').matches(found)
    assert not parse_filter('insertId>"0000000001"').matches(lookup_in({"insertId": ExactText("00000000.1")}))
