"""Models, versions and operations over a real store and real buckets; only the model servers are the test's."""

import asyncio
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from enginehouse.core.errors import AlreadyExists, EngineError, FailedPrecondition, InvalidArgument, NotFound
from enginehouse.core.names import ModelName, OperationName, VersionName
from enginehouse.core.settings import load_settings
from enginehouse.metadata.store import SqlMetadataStore
from enginehouse.registry.containers import Containers
from enginehouse.registry.deployer import Deployer
from enginehouse.registry.directory import StoredVersions
from enginehouse.registry.messages import SCHEMA
from enginehouse.registry.service import RegistryService
from enginehouse.registry.traffic import TrafficService
from enginehouse.runtimes.catalogue import Catalogue
from enginehouse.schemas.ml_v1 import AutoScaling, ManualScaling, Model, Operation, Version
from enginehouse.serving.scaling import Scaling
from enginehouse.serving.traffic import RollBack, Verdict
from enginehouse.serving.types import DeployReport, ModelLoadError, ServedVersion
from enginehouse.storage.local import LocalObjectStore
from enginehouse.testing.clock import FakeClock

MODEL = ModelName("demo", "iris")
V1 = VersionName("demo", "iris", "v1")


class FakeServers:
    """Loads whatever `judge` lets pass."""

    def __init__(self) -> None:
        self.deployed: list[ServedVersion] = []
        self.retired: list[str] = []
        self.rescaled: list[ServedVersion] = []
        self.judge: Callable[[ServedVersion], None] = lambda version: None

    async def deploy(self, version: ServedVersion) -> DeployReport:
        self.judge(version)
        self.deployed.append(version)
        return DeployReport(load_s=0.1, self_test="passed", signatures={"predict": {"inputs": {}}})

    async def retire(self, uid: str) -> None:
        self.retired.append(uid)

    async def rescale(self, version: ServedVersion) -> None:
        self.rescaled.append(version)


class World:
    def __init__(self, directory: Path) -> None:
        self.clock = FakeClock()
        self.settings = load_settings({"data_dir": directory}, environ={})
        self.store = SqlMetadataStore.open_sqlite(self.settings.metadata_path, self.clock)
        self.storage = LocalObjectStore(self.settings.objects_dir, self.clock)
        self.servers = FakeServers()
        self.container_engine = ""
        self.forgotten: list[tuple[str, str]] = []
        self.catalogue = Catalogue.load()
        self.loop = asyncio.new_event_loop()
        self._loop_thread = threading.Thread(target=self.loop.run_forever)
        self._loop_thread.start()
        self.deployer = self.new_engine()
        self.storage.create_bucket("bucket")
        self.put("good/model.joblib", b"model")
        self.put("good/extra/notes.txt", b"notes")

    def new_engine(self) -> Deployer:
        environment = SimpleNamespace(python=Path(sys.executable))
        runtimes: Any = SimpleNamespace(ready=lambda _resolution: environment, ensure=lambda *_args: environment)
        containers = Containers(self.find_container_engine)
        self.directory = StoredVersions(self.store, self.catalogue, runtimes, self.settings.versions_dir, containers)
        deployer = Deployer(
            self.store,
            self.storage,
            self.catalogue,
            runtimes,
            self.servers,
            self.settings.versions_dir,
            self.clock,
            self.directory,
        )
        self.registry = RegistryService(
            self.store,
            self.storage,
            self.catalogue,
            self.clock,
            wake=deployer.wake,
            forget=lambda project, model: self.forgotten.append((project, model)),
            retire=deployer.retire,
            rescale=deployer.rescale,
            find_container_engine=self.find_container_engine,
        )
        deployer.start(self.loop)
        self.deployer = deployer
        return deployer

    def find_container_engine(self) -> str:
        if not self.container_engine:
            raise FailedPrecondition("A custom container needs podman or docker.")
        return self.container_engine

    def put(self, name: str, data: bytes) -> None:
        with self.storage.writer("bucket", name) as writer:
            writer.write(data)

    def create(self, version_id: str = "v1", **fields: Any) -> Operation:
        wanted: dict[str, Any] = {"deployment_uri": "gs://bucket/good", "runtime_version": "scikit-learn-1.9"}
        return self.registry.create_version(MODEL, Version(name=version_id, **(wanted | fields)))

    def wait(self, operation: Operation) -> Operation:
        deadline = time.monotonic() + 20
        name = OperationName("demo", operation.name.rpartition("/")[2])
        while not (found := self.registry.get_operation(name)).done:
            assert time.monotonic() < deadline, found
            time.sleep(0.01)
        return found

    def close(self) -> None:
        self.deployer.stop()
        asyncio.run_coroutine_threadsafe(asyncio.sleep(0), self.loop).result()  # what was handed over is done first
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._loop_thread.join()
        self.loop.close()
        self.storage.close()
        self.store.close()


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path)
    world.registry.create_model("demo", Model(name="iris"))
    yield world
    world.close()


def test_a_version_is_copied_loaded_and_ready(world: World) -> None:
    operation = world.create()
    assert operation.metadata["operationType"] == "CREATE_VERSION"
    assert not operation.done
    ended = world.wait(operation)
    assert ended.error is None
    assert ended.response is not None
    assert ended.response["state"] == "READY"
    version = world.registry.get_version(V1)
    assert (version.state, version.is_default, version.framework) == ("READY", True, "SCIKIT_LEARN")
    served = world.directory.resolve("demo", "iris", None)
    assert served == world.servers.deployed[0]
    world.put("good/model.joblib", b"changed later")
    assert (served.directory / "model.joblib").read_bytes() == b"model"
    assert (served.directory / "extra" / "notes.txt").read_bytes() == b"notes"
    assert ("demo", "iris") in world.forgotten


def test_a_bad_model_fails_with_the_reason_and_leaves_no_files(world: World) -> None:
    def refuse(_version: ServedVersion) -> None:
        raise ModelLoadError("Failed to load model: it is no model (Error code: 0)")

    world.servers.judge = refuse
    ended = world.wait(world.create())
    assert ended.error is not None
    assert ended.error.message == (
        "Create Version failed. Bad model detected with error:  "
        '"Failed to load model: it is no model (Error code: 0)"'
    )
    version = world.registry.get_version(V1)
    assert (version.state, version.error_message) == ("FAILED", ended.error.message)
    with pytest.raises(FailedPrecondition, match="it is no model"):
        world.directory.resolve("demo", "iris", "v1")
    assert list(world.settings.versions_dir.iterdir()) == []
    assert world.registry.delete_version(V1).done


@pytest.mark.parametrize(
    ("fields", "field", "words"),
    [
        ({"deployment_uri": ""}, "version.deployment_uri", "required"),
        ({"deployment_uri": "/tmp/model"}, "version.deployment_uri", "gs://"),
        ({"deployment_uri": "gs://nothing/x"}, "version.deployment_uri", "no bucket"),
        ({"deployment_uri": "gs://bucket/nothing"}, "version.deployment_uri", "no files"),
        ({"deployment_uri": "gs://bucket/good/extra"}, "version.deployment_uri", "notes.txt"),
        ({"framework": "TENSORFLOW"}, "version.deployment_uri", "saved_model.pb"),
        ({"runtime_version": ""}, "version.runtime_version", "scikit-learn-1.9"),
        ({"runtime_version": "0.1"}, "version.runtime_version", "scikit-learn-1.9"),
        ({"version_id": "1"}, "version.name", "start with a letter"),
    ],
)
def test_what_is_wrong_is_refused_at_once(world: World, fields: dict[str, Any], field: str, words: str) -> None:
    with pytest.raises(EngineError, match=words) as error:
        world.create(**fields)
    assert error.value.field == field
    assert world.store.pending_operations() == []


def test_a_runtime_without_the_framework_is_refused(world: World) -> None:
    world.put("tf/saved_model.pb", b"")
    with pytest.raises(InvalidArgument, match=r"2\.21") as error:
        world.create(deployment_uri="gs://bucket/tf")
    assert error.value.field == "version.runtime_version"


@pytest.mark.parametrize(
    ("files", "framework"),
    [
        (["saved_model.pb", "variables/variables.index"], "TENSORFLOW"),
        (["saved_model.pbtxt"], "TENSORFLOW"),
        (["model.pkl"], "SCIKIT_LEARN"),
        (["model.joblib"], "SCIKIT_LEARN"),
        (["model.bst"], "XGBOOST"),
        (["model.json"], "XGBOOST"),
    ],
)
def test_frameworks_are_known_by_their_files(world: World, files: list[str], framework: str) -> None:
    for file in files:
        world.put(f"found/{file}", b"x")
    ended = world.wait(world.create(deployment_uri="gs://bucket/found/", runtime_version="2.21"))
    assert ended.response is not None
    assert ended.response["framework"] == framework


def test_two_model_files_are_one_too_many(world: World) -> None:
    world.put("good/model.pkl", b"another")
    with pytest.raises(FailedPrecondition, match="exactly one"):
        world.create()


def test_the_default_version_stays_while_there_are_others(world: World) -> None:
    for version_id in ("v1", "v2"):
        world.wait(world.create(version_id))
    with pytest.raises(FailedPrecondition, match="default"):
        world.registry.delete_version(V1)
    v2 = VersionName("demo", "iris", "v2")
    assert world.registry.set_default_version(v2).is_default
    assert world.directory.resolve("demo", "iris", None).name == v2
    uid = world.directory.resolve("demo", "iris", "v1").uid
    assert world.registry.delete_version(V1).response == {"@type": "type.googleapis.com/google.protobuf.Empty"}
    with pytest.raises(NotFound):
        world.directory.resolve("demo", "iris", "v1")
    assert not (world.settings.versions_dir / uid).exists()
    with pytest.raises(FailedPrecondition):
        world.registry.delete_model(MODEL)
    world.registry.delete_version(v2)
    assert world.registry.get_model(MODEL).default_version is None
    with pytest.raises(FailedPrecondition, match="no version yet"):
        world.directory.resolve("demo", "iris", None)
    assert world.registry.delete_model(MODEL).done


def test_a_version_being_created_is_left_alone(world: World) -> None:
    going_on = threading.Event()

    def hold(_version: ServedVersion) -> None:
        going_on.wait(20)

    world.servers.judge = hold
    operation = world.create()
    try:
        with pytest.raises(FailedPrecondition, match="CREATING"):
            world.registry.delete_version(V1)
        with pytest.raises(FailedPrecondition, match="CREATING"):
            world.registry.patch_version(V1, Version(description="x"), frozenset({"description"}))
        with pytest.raises(FailedPrecondition, match="CREATING"):
            world.directory.resolve("demo", "iris", "v1")
        with pytest.raises(AlreadyExists):
            world.create(description="another")
    finally:
        going_on.set()
    assert world.wait(operation).error is None


def test_a_new_engine_finishes_what_the_old_one_began(world: World) -> None:
    world.deployer.stop()
    operation = world.create()
    leftover = world.settings.versions_dir / "unknown"
    leftover.mkdir(parents=True)
    world.new_engine()
    assert world.wait(operation).error is None
    assert world.registry.get_version(V1).state == "READY"
    assert not leftover.exists(), "files of versions that are gone are removed at the start"


def test_patches_change_what_they_name_and_nothing_else(world: World) -> None:
    world.wait(world.create(description="old", labels={"a": "b"}))
    patched = world.registry.patch_version(
        V1, Version(description="new", labels={"c": "d"}), frozenset({"description"})
    )
    assert patched.response is not None
    assert (patched.response["description"], patched.response["labels"]) == ("new", {"a": "b"})
    world.registry.patch_model(MODEL, Model(description="m", labels={"x": "y"}), frozenset({"labels", "description"}))
    model = world.registry.get_model(MODEL)
    assert (model.description, model.labels, model.regions) == ("m", {"x": "y"}, ["us-central1"])
    with pytest.raises(InvalidArgument) as error:
        world.registry.patch_version(V1, Version(), frozenset({"deployment_uri"}))
    assert error.value.field == "update_mask"
    with pytest.raises(EngineError, match="etag"):
        world.registry.patch_model(MODEL, Model(etag="AAAAAAAAAAE="), frozenset({"description"}))


def test_a_nested_field_is_changed_alone(world: World) -> None:
    world.wait(world.create(auto_scaling=AutoScaling(min_nodes=1, max_nodes=5)))
    patched = world.registry.patch_version(
        V1, Version(auto_scaling=AutoScaling(min_nodes=2)), frozenset({"auto_scaling.min_nodes"})
    )
    assert patched.response is not None
    assert patched.response["autoScaling"] == {"minNodes": 2, "maxNodes": 5}


def test_creates_are_safe_to_repeat(world: World) -> None:
    made = world.registry.create_model("demo", Model(name="m2"), "run-1")
    world.clock.advance(3600)
    assert world.registry.create_model("demo", Model(name="m2"), "run-1") == made
    for model, caller in ((Model(name="m2"), "run-2"), (Model(name="m2", description="x"), "run-1")):
        with pytest.raises(AlreadyExists):
            world.registry.create_model("demo", model, caller)
    version = Version(name="v1", deployment_uri="gs://bucket/good", runtime_version="scikit-learn-1.9")
    operation = world.registry.create_version(MODEL, version, "run-1")
    world.wait(operation)
    world.registry.patch_version(V1, Version(description="later"), frozenset({"description"}))
    assert world.registry.create_version(MODEL, version, "run-1").name == operation.name
    with pytest.raises(AlreadyExists):
        world.registry.create_version(MODEL, version, "run-2")
    assert world.wait(world.create("v2")).error is None


def test_models_are_unique_and_well_named(world: World) -> None:
    with pytest.raises(AlreadyExists):
        world.registry.create_model("demo", Model(name="iris", description="another"))
    with pytest.raises(InvalidArgument) as error:
        world.registry.create_model("demo", Model(name="1-iris"))
    assert error.value.field == "model.name"
    listed = world.registry.list_models("demo", page_size=10, page_token="")
    assert [model.name for model in listed.models] == ["projects/demo/models/iris"]


def test_a_version_tells_its_schema_only_to_those_who_ask_for_it(world: World) -> None:
    world.registry.create_model("demo", Model(name="iris"))
    world.wait(world.create())
    assert world.store.get_version(V1).request[SCHEMA] == {"predict": {"inputs": {}}}
    assert world.registry.get_version(V1).state == "READY"
    assert world.registry.list_versions(MODEL, page_size=5).versions[0].framework == "SCIKIT_LEARN"


def test_another_number_of_nodes_reaches_the_servers_at_once_and_again_after_a_restart(world: World) -> None:
    world.registry.create_model("demo", Model(name="iris"))
    world.wait(world.create())
    wanted = Version(auto_scaling=AutoScaling(min_nodes=2, max_nodes=3))
    world.registry.patch_version(V1, wanted, frozenset({"auto_scaling.min_nodes", "auto_scaling.max_nodes"}))
    until(lambda: [version.scaling for version in world.servers.rescaled] == [Scaling(2, 3)])
    world.deployer.stop()
    world.new_engine()
    until(lambda: [version.scaling for version in world.servers.rescaled] == [Scaling(2, 3)] * 2)


@pytest.mark.parametrize(
    ("fields", "path"),
    [
        ({"auto_scaling": AutoScaling(min_nodes=3, max_nodes=2)}, "version.auto_scaling.min_nodes"),
        ({"manual_scaling": ManualScaling(nodes=-1)}, "version.manual_scaling.nodes"),
        (
            {"manual_scaling": ManualScaling(nodes=1), "auto_scaling": AutoScaling(min_nodes=1)},
            "version.manual_scaling",
        ),
    ],
)
def test_wishes_for_nodes_that_cannot_be(world: World, fields: dict[str, Any], path: str) -> None:
    world.registry.create_model("demo", Model(name="iris"))
    with pytest.raises(InvalidArgument) as caught:
        world.create(**fields)
    assert caught.value.field == path


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


class TestTraffic:
    @pytest.fixture
    def traffic(self, world: World) -> TrafficService:
        world.registry.create_model("demo", Model(name="iris"))
        for version_id in ("v1", "v2"):
            world.wait(world.create(version_id))
        world.forgotten.clear()
        return TrafficService(world.store, lambda project, model: world.forgotten.append((project, model)))

    def test_shares_are_kept_shown_and_served(self, world: World, traffic: TrafficService) -> None:
        assert traffic.get(MODEL) == {"shares": {"v1": 100}, "base": "v1"}
        assert world.directory.traffic("demo", "iris") is None
        shown = traffic.set(MODEL, {"v1": 90, "v2": 10}, {"min_requests": 20})
        assert shown["shares"] == {"v1": 90, "v2": 10} and shown["rollBack"]["min_requests"] == 20
        assert world.forgotten == [("demo", "iris")]
        found = world.directory.traffic("demo", "iris")
        assert found is not None and found.split.shares == {"v1": 90, "v2": 10} and found.split.base == "v1"
        assert found.split.roll_back == RollBack(min_requests=20)
        assert world.registry.get_model(MODEL).name == "projects/demo/models/iris"  # no field of the API

    def test_a_verdict_takes_it_back_with_an_event(self, world: World, traffic: TrafficService) -> None:
        traffic.set(MODEL, {"v1": 50, "v2": 50}, {})
        traffic.roll_back(MODEL, Verdict("v2", "all requests failed"))
        assert world.directory.traffic("demo", "iris") is None
        assert traffic.get(MODEL)["decision"] == "v2 was taken back: all requests failed"
        events = world.store.events(str(MODEL), kinds=["decision"])
        assert events[-1].message == "Traffic: v2 was taken back: all requests failed"
        traffic.roll_back(MODEL, Verdict("v2", "again"))
        assert len(world.store.events(str(MODEL), kinds=["decision"])) == len(events)

    def test_another_default_version_or_a_deleted_one_ends_it(self, world: World, traffic: TrafficService) -> None:
        traffic.set(MODEL, {"v1": 50, "v2": 50}, {})
        world.registry.set_default_version(VersionName("demo", "iris", "v2"))
        found = world.directory.traffic("demo", "iris")
        assert found is not None and found.split.base == "v2"
        world.registry.delete_version(V1)
        assert world.directory.traffic("demo", "iris") is None
        until(lambda: len(world.servers.retired) == 1)

    @pytest.mark.parametrize(
        ("shares", "limits", "words"),
        [
            ({}, {}, "whole number"),
            ({"v1": 50, "v2": 49}, {}, "make 99 %"),
            ({"v1": 99.5, "v2": 0.5}, {}, "whole number"),
            ({"v2": 100}, {}, "default version 'v1' must be in it"),
            ({"v1": 100}, {"speed": 1}, "no limit; there are: max_error_increase"),
        ],
    )
    def test_what_cannot_be(
        self, traffic: TrafficService, shares: dict[str, Any], limits: dict[str, Any], words: str
    ) -> None:
        with pytest.raises(InvalidArgument, match=words):
            traffic.set(MODEL, shares, limits)

    def test_an_unknown_version_has_no_share(self, traffic: TrafficService) -> None:
        with pytest.raises(NotFound):
            traffic.set(MODEL, {"v1": 50, "v9": 50}, {})
