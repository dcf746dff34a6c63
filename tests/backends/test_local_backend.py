"""The local backend keeps the contract of all backends."""

import pytest

from enginehouse.backends.local import LocalBackend
from enginehouse.testing.backends import BackendContract
from enginehouse.testing.replicas import ReplicaFactory


class TestLocalBackend(BackendContract):
    @pytest.fixture
    def backend(self) -> LocalBackend:
        return LocalBackend()

    @pytest.fixture
    def replicas(self, request: pytest.FixtureRequest) -> ReplicaFactory:
        return request.getfixturevalue("replicas")
