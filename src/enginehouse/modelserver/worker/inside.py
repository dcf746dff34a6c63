# -*- coding: utf-8 -*-
# mypy: ignore-errors
"""Runs inside an old runtime: `python inside.py DESCRIPTOR FRAMEWORK DIRECTORY [SITE_DIR …]` serves one model.

One file, standard library, numpy and the framework only, good for Python 2.7 and 3.6 to current. The other side of the
socket is `modelserver.worker.link`; the two share this format. A message is

    uint32  size of the head      (both little endian)
    uint64  size of the payload
    head    JSON
    payload the arrays that head["arrays"] describes, one after the other

and an array is {"dtype", "shape", "size": bytes} with one of three kinds of content:

    "<f4", …   numbers as numpy has them in memory
    "bytes"    uint32 lengths of all cells, then the cells; "text" is the same in UTF-8
    "json"     JSON, where there is no array: mixed cells, the values of custom routines

The first message is this side's: {"loaded": …} or {"refused": words}. Then each call, {"call": name, "arrays": […]},
gets {"arrays": […]} or {"error": {"types": the exception's class and its bases, "message": …, "data": whether the
framework blames the data}}.
"""

import base64
import json
import os
import socket
import struct
import sys
import traceback
import warnings

FORMAT = struct.Struct("<IQ")
PYTHON_2 = sys.version_info[0] == 2
TEXT = type(u"")
QUIET_WARNINGS = (DeprecationWarning, PendingDeprecationWarning, ImportWarning) + (() if PYTHON_2 else (ResourceWarning,))


class Refused(Exception):
    """The model can't be served; the text is for its owner."""


# --- messages ---


def receive(connection):
    """The next message as (head, payload); None at the end."""
    start = read(connection, FORMAT.size)
    if start is None:
        return None
    head_bytes, payload_bytes = FORMAT.unpack(bytes(start))
    head = json.loads(bytes(read(connection, head_bytes)).decode("utf-8"))
    return head, read(connection, payload_bytes)


def read(connection, size):
    data = bytearray(size)
    view = memoryview(data)
    done = 0
    while done < size:
        n = connection.recv_into(view[done:], size - done)
        if not n:
            return None
        done += n
    return data


def send(connection, head, contents=()):
    text = json.dumps(head).encode("utf-8")
    size = sum(len(content) for content in contents)
    start = FORMAT.pack(len(text), size) + text
    if size < 65536:
        connection.sendall(start + b"".join(bytes(content) for content in contents))
        return
    connection.sendall(start)
    for content in contents:
        connection.sendall(content)


def unpack(specs, payload):
    """The arrays of a message."""
    import numpy as np

    arrays, start = [], 0
    for spec in specs:
        end = start + spec["size"]
        part = payload[start:end]
        start = end
        if spec["dtype"] == "json":
            arrays.append(decoded(json.loads(part.decode("utf-8"))))
        elif spec["dtype"] in ("bytes", "text"):
            arrays.append(cells(part, spec["shape"], spec["dtype"] == "text"))
        else:
            arrays.append(np.frombuffer(part, dtype=np.dtype(str(spec["dtype"]))).reshape(spec["shape"]))
    return arrays


def cells(part, shape, is_text):
    import numpy as np

    n = 1
    for dim in shape:
        n *= dim
    lengths = np.frombuffer(part, dtype="<u4", count=n)
    array = np.empty(n, dtype=object)
    start = 4 * n
    for i in range(n):
        cell = bytes(part[start : start + int(lengths[i])])
        array[i] = cell.decode("utf-8") if is_text else cell
        start += int(lengths[i])
    return array.reshape(shape)


def pack(value):
    """(description, content) of an array, or of anything else as JSON."""
    import numpy as np

    if isinstance(value, np.ndarray) and value.dtype.kind in "fiub":
        value = np.ascontiguousarray(value)
        content = value.tobytes()
        # `ascontiguousarray` makes a row of what has no dimensions.
        return {"dtype": value.dtype.str, "shape": list(value.shape), "size": len(content)}, content
    if isinstance(value, np.ndarray) and value.size and value.dtype.kind in "OSU":
        leaves = value.ravel().tolist()
        for name, kind in (("bytes", bytes), ("text", TEXT)):
            if all(type(leaf) is kind for leaf in leaves):
                if name == "text":
                    leaves = [leaf.encode("utf-8") for leaf in leaves]
                lengths = np.array([len(leaf) for leaf in leaves], dtype="<u4").tobytes()
                content = lengths + b"".join(leaves)
                return {"dtype": name, "shape": list(value.shape), "size": len(content)}, content
    content = json.dumps(encoded(value)).encode("utf-8")
    return {"dtype": "json", "shape": [], "size": len(content)}, content


def encoded(value):
    """`value` as JSON can carry it: numpy's values as Python's, bytes that are no text as {"b64": …}."""
    import numpy as np

    if value is None or isinstance(value, (bool, int, float, TEXT)):
        return value
    if isinstance(value, bytes):
        if PYTHON_2:  # where text mostly is of this type
            try:
                return value.decode("utf-8")
            except UnicodeDecodeError:
                pass
        return {"b64": base64.b64encode(value).decode("ascii")}
    if isinstance(value, (list, tuple)):
        return [encoded(item) for item in value]
    if isinstance(value, dict):
        return dict((TEXT(key), encoded(item)) for key, item in value.items())
    if isinstance(value, np.generic):
        return encoded(value.item())
    if isinstance(value, np.ndarray):
        return encoded(value.tolist())
    if PYTHON_2 and isinstance(value, long):  # noqa: F821
        return value
    return TEXT(value)


def decoded(value):
    """The bytes of {"b64": …}, wherever they are; in the other direction the cells of a table may be bytes."""
    if isinstance(value, dict):
        if len(value) == 1 and "bytes_b64" in value:
            return base64.b64decode(value["bytes_b64"])
        return dict((key, decoded(item)) for key, item in value.items())
    if isinstance(value, list):
        return [decoded(item) for item in value]
    return value


def describe(error):
    """The framework's own words; the class name where it has none."""
    try:
        words = TEXT(error)
    except UnicodeError:
        words = bytes(error).decode("utf-8", "replace")
    return words.strip() or type(error).__name__


# --- frameworks ---


class TensorFlowModel(object):
    """A SavedModel in a session, by prepared callables where this TensorFlow has them."""

    def __init__(self, directory, _name):
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "1")
        import tensorflow as tf

        self._tf = tf
        v1 = getattr(tf.compat, "v1", tf) if hasattr(tf, "compat") else tf
        errors = tf.errors
        self.data_errors = (errors.InvalidArgumentError,)
        try:
            meta_graph = self._load(v1, directory)
        except errors.NotFoundError as error:
            if "Op type not registered" not in describe(error) or not hasattr(tf, "contrib"):
                raise
            dir(tf.contrib)  # brings the operations of TensorFlow's contributed part
            meta_graph = self._load(v1, directory)
        self._calls = {}
        signatures = {}
        for name, definition in meta_graph.signature_def.items():
            if definition.inputs and definition.outputs:
                signatures[name] = self._signature(name, definition)
        if not signatures:
            raise Refused("MetaGraph must have at least one signature_def with inputs and outputs.")
        self.facts = {"version": tf.__version__, "signatures": signatures}

    def _load(self, v1, directory):
        self._session = v1.Session(graph=v1.Graph())
        # In the graph, where the calls are prepared and the first versions want to be for loading.
        with self._session.graph.as_default():
            return v1.saved_model.loader.load(self._session, ["serve"], directory)

    def _signature(self, name, definition):
        sides, tensors = [], []
        for side in (definition.inputs, definition.outputs):
            specs = []
            for alias, info in sorted(side.items()):
                if not info.name:
                    raise Refused(
                        "The input or output %s is a sparse or composite tensor; only dense ones are served." % alias
                    )
                dtype = self._tf.as_dtype(info.dtype)
                shape = info.tensor_shape
                dims = None if shape.unknown_rank else [None if dim.size < 0 else int(dim.size) for dim in shape.dim]
                specs.append([alias, info.name, dtype.name, dims])
            sides.append(specs)
            tensors.append([self._session.graph.get_tensor_by_name(spec[1]) for spec in specs])
        self._calls[name] = self._callable(*tensors)
        return {"inputs": sides[0], "outputs": sides[1]}

    def _callable(self, inputs, outputs):
        session = self._session
        try:
            return session.make_callable(outputs, feed_list=inputs)
        except (AttributeError, TypeError, NotImplementedError):  # before TensorFlow 1.4 or so
            return lambda *arrays: session.run(outputs, dict(zip(inputs, arrays)))

    def call(self, name, arrays):
        return self._calls[name](*arrays)


class SklearnModel(object):
    """An estimator or a pipeline from a pickle."""

    data_errors = ()

    def __init__(self, directory, _name):
        import sklearn

        self._model = load_pickled(directory)
        if not callable(getattr(self._model, "predict", None)):
            raise Refused(
                "Invalid model type detected: %s. Please make sure the model file is an exported sklearn model or "
                "pipeline." % type_name(self._model)
            )
        names = getattr(self._model, "feature_names_in_", None)
        self._names = None if names is None else [TEXT(name) for name in names]
        self.facts = {
            "version": sklearn.__version__,
            "features": self._names,
            "n_features": n_features(self._model),
            "explained": explained_by(self._model),
            "labels": labels_of(self._model),
        }

    def call(self, name, arrays):
        how, _, method = name.rpartition(" ")
        table = arrays[0]
        if isinstance(table, list):
            import numpy as np

            # Rows of cells of several types; an instance that is no list is a row's only cell, such as a text.
            table = np.array(table, dtype=object)
        if how == "frame":
            import pandas

            table = pandas.DataFrame(table, columns=self._names).infer_objects()
        return [as_array(getattr(self._model, str(method))(table))]


class XgboostModel(object):
    """A Booster from its own file, or anything with one from a pickle."""

    data_errors = ()

    def __init__(self, directory, _name):
        import xgboost

        self._xgboost = xgboost
        path = None
        for name in ("model.bst", "model.json", "model.ubj"):
            if path is None and os.path.isfile(os.path.join(directory, name)):
                path = os.path.join(directory, name)
        if path is not None:
            try:
                self._model = xgboost.Booster({"nthread": 1})
                self._model.load_model(path)
            except Exception as error:
                raise Refused(
                    "Unexpected error when loading the model: Could not load %s: %s"
                    % (os.path.basename(path), describe(error))
                )
        else:
            self._model = load_pickled(directory)
        self._is_booster = isinstance(self._model, xgboost.Booster)
        if self._is_booster:
            self._booster = self._model
        elif isinstance(self._model, xgboost.XGBModel):
            self._booster = self._model.get_booster()
        else:
            raise Refused(
                "Invalid model type detected: %s. Please make sure the model file is an exported xgboost model."
                % type_name(self._model)
            )
        self._booster.set_param({"nthread": 1})
        names = self._booster.feature_names
        self.facts = {
            "version": xgboost.__version__,
            "features": None if names is None else [TEXT(name) for name in names],
            "n_features": self._count_features(),
            "explained": explained_by(self._model),
            "labels": labels_of(self._model),
        }
        # The prediction would be the number of a class; the raw model names its objective in all formats.
        if self._is_booster and b"multi:softmax" in bytes(self._booster.save_raw()):
            self.facts["explained"] = "margin"

    def _count_features(self):
        if self._booster.feature_names is not None:
            return len(self._booster.feature_names)
        if hasattr(self._booster, "num_features"):
            return int(self._booster.num_features())
        # Before there was a method for it: the second number of the raw model, after a mark that some versions set.
        raw = bytes(self._booster.save_raw())
        start = 4 if raw[:4] == b"binf" else 0
        return struct.unpack_from("<fI", raw, start)[1]

    def call(self, name, arrays):
        import numpy as np

        table = np.asarray(arrays[0], dtype=np.float32)
        if not self._is_booster:
            return [as_array(getattr(self._model, str(name))(table))]
        matrix = self._xgboost.DMatrix(table, feature_names=self._booster.feature_names, nthread=1)
        return [as_array(self._booster.predict(matrix, output_margin=name == "margin"))]


class CustomModel(object):
    """The user's own class, from the version's packages."""

    data_errors = ()
    _USER_CODE = "There was a problem processing the user code"

    def __init__(self, directory, name):
        module_name, _, class_name = name.rpartition(".")
        try:
            predictor = getattr(__import__(module_name, fromlist=[str(class_name)]), class_name)
        except (ImportError, AttributeError, ValueError) as error:
            raise Refused(
                "%s cannot be found. Please make sure (1) prediction_class is the fully qualified class name, and (2) "
                "%s uses the correct package name as provided by the package_uris: %s" % (name, name, describe(error))
            )
        for method in ("from_path", "predict"):
            if not callable(getattr(predictor, method, None)):
                raise Refused("%s: %s has no method %s." % (self._USER_CODE, name, method))
        try:
            self._predictor = predictor.from_path(str(directory))
        except Exception as error:
            traceback.print_exc()
            raise Refused(
                "%s: %s.from_path raised %s: %s" % (self._USER_CODE, name, type(error).__name__, describe(error))
            )
        self.facts = {}

    def call(self, _name, arrays):
        instances, more = arrays[0]
        return [self._predictor.predict(instances, **dict((str(key), value) for key, value in more.items()))]


MODELS = {"TENSORFLOW": TensorFlowModel, "SCIKIT_LEARN": SklearnModel, "XGBOOST": XgboostModel}
CUSTOM = "CUSTOM:"


def load_pickled(directory):
    """The object in model.joblib, else in model.pkl."""
    import pickle

    for name in ("model.joblib", "model.pkl"):
        path = os.path.join(directory, name)
        if os.path.isfile(path):
            break
    else:
        raise Refused(
            "Could not find any of model.joblib, model.pkl among %s." % sorted(os.listdir(directory))[:20]
        )
    try:
        if name == "model.pkl":
            with open(path, "rb") as file:
                try:
                    return pickle.load(file)
                except Exception as error:
                    try:  # joblib's own format under the other name
                        return joblib().load(path)
                    except Exception:
                        raise error
        return joblib().load(path)
    except Exception as error:
        traceback.print_exc()
        raise Refused(
            "Unexpected error when loading the model: Could not load %s: %s (%s)"
            % (name, describe(error), type(error).__name__)
        )


def joblib():
    """The joblib that scikit-learn of the time brought with it, else the one of its own."""
    try:
        from sklearn.externals import joblib

        return joblib
    except ImportError:
        import joblib

        return joblib


def n_features(model):
    """The number of columns that a fitted model takes; None where it can't be told.

    Before scikit-learn 0.24 no attribute says it for all models; those that were fitted hold arrays with that many
    columns.
    """
    for step in first_steps(model):
        for name in ("n_features_in_", "n_features_"):
            if isinstance(getattr(step, name, None), (int,)):
                return int(getattr(step, name))
        for name in ("coef_", "mean_", "scale_", "min_", "statistics_", "theta_", "cluster_centers_", "support_vectors_"):
            shape = getattr(getattr(step, name, None), "shape", ())
            if len(shape) in (1, 2) and not (name == "mean_" and len(shape) == 2):
                return int(shape[-1])
    return None


def first_steps(model):
    """The model, or what sees the instances first in it."""
    for name in ("best_estimator_", "steps"):
        try:
            inner = getattr(model, name)
        except Exception:
            continue
        if name == "steps":
            inner = inner[0][1]
        return first_steps(inner)
    return [model]


def explained_by(model):
    """The method whose values are explained."""
    return next(name for name in ("predict_proba", "decision_function", "predict") if hasattr(model, name))


def labels_of(model):
    """The classes whose probabilities `predict_proba` gives."""
    if explained_by(model) != "predict_proba":
        return []
    return [TEXT(encoded(label)) for label in getattr(model, "classes_", ())]


def type_name(value):
    kind = type(value)
    return "%s.%s" % (kind.__module__.replace("__builtin__", "builtins"), kind.__name__)


def as_array(output):
    import numpy as np

    if hasattr(output, "toarray"):  # sparse, from multi-label classifiers
        output = output.toarray()
    output = np.asarray(output)
    if PYTHON_2 and output.dtype.kind in "SO":  # labels are text, though of the type that TensorFlow has for bytes
        as_text = np.empty(output.shape, dtype=object)
        as_text.ravel()[:] = [encoded(leaf) for leaf in output.ravel().tolist()]
        return as_text
    return output


# --- the process ---


def main(arguments):
    descriptor, framework, directory, site_dirs = int(arguments[0]), arguments[1], arguments[2], arguments[3:]
    connection = socket.fromfd(descriptor, socket.AF_UNIX, socket.SOCK_STREAM)  # one that children don't inherit
    os.close(descriptor)
    if PYTHON_2:
        import fcntl

        fcntl.fcntl(connection.fileno(), fcntl.F_SETFD, fcntl.FD_CLOEXEC)
    else:
        import faulthandler

        faulthandler.enable()
    sys.path.pop(0)  # where this file lies
    import site

    for directory_of_packages in reversed(site_dirs):
        sys.path.insert(0, directory_of_packages)
        site.addsitedir(directory_of_packages)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        try:
            model = load(framework, directory)
        except Refused as error:
            send(connection, {"refused": describe(error)})
            return 1
        except (Exception, SystemExit) as error:
            traceback.print_exc()
            words = "Unexpected error when loading the model: %s (%s)" % (describe(error), type(error).__name__)
            if framework == "TENSORFLOW":
                words = "Error loading the model: Could not load model: " + describe(error)
            send(connection, {"refused": words})
            return 1
    told = [[w.category.__name__, describe(w.message)] for w in caught if not issubclass(w.category, QUIET_WARNINGS)]
    send(connection, {"loaded": model.facts, "warnings": told})
    while True:
        message = receive(connection)
        if message is None:
            return 0
        head, payload = message
        try:
            packed = [pack(value) for value in model.call(head["call"], unpack(head["arrays"], payload))]
        except (Exception, SystemExit) as error:
            if not isinstance(error, model.data_errors):
                traceback.print_exc()
            send(connection, {"error": tell(error, isinstance(error, model.data_errors))})
        else:
            send(connection, {"arrays": [spec for spec, _ in packed]}, [content for _, content in packed])


def load(framework, directory):
    if framework.startswith(CUSTOM):
        return CustomModel(directory, framework[len(CUSTOM) :])
    if framework not in MODELS:
        raise Refused("%s is not served on Python %d.%d." % ((framework,) + tuple(sys.version_info[:2])))
    return MODELS[framework](directory, "")


def tell(error, is_data):
    types = [kind.__name__ for kind in type(error).__mro__]
    message = getattr(error, "message", None) if is_data else None
    return {"types": types, "message": message or describe(error), "data": is_data}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
