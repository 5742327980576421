"""Parses a record, a `tf.train.Example`: named features, each a list of values of one kind.

The message is defined here with the field numbers of TensorFlow's `example.proto` and
`feature.proto`, so that protobuf can read it without TensorFlow.
"""

from functools import cache
from typing import Any

import numpy as np

# fmt: off
MESSAGES = {
    # message       field -> (number, type, repeated)
    "BytesList":    {"value": (1, "bytes", True)},
    "FloatList":    {"value": (1, "float", True)},
    "Int64List":    {"value": (1, "int64", True)},
    "Feature":      {"bytes_list": (1, "BytesList", False), "float_list": (2, "FloatList", False),
                     "int64_list": (3, "Int64List", False)},  # one of these
    "Entry":        {"key": (1, "string", False), "value": (2, "Feature", False)},
    "Features":     {"feature": (1, "Entry", True)},
    "Example":      {"features": (1, "Features", False)},
}
# fmt: on
KINDS = {"bytes_list": "bytes", "float_list": "float", "int64_list": "int64"}
DTYPES = {"float_list": np.float32, "int64_list": np.int64}


class Features(dict[str, np.ndarray | list[bytes]]):
    """Feature -> its values: int64 or float32 [n], or a list of bytes."""


def read_features(data: bytes) -> Features:
    """Parse the features of an example; if a name occurs twice, the last one counts.

    Raises:
        ValueError: the data is no example.
        ImportError: protobuf is missing.
    """
    example, error_type = _example()
    try:
        found = example.FromString(data)
    except error_type as error:
        raise ValueError(f"is no tf.train.Example: {error}") from error
    features = Features()
    for entry in found.features.feature:
        kind = entry.value.WhichOneof("kind")
        if kind is None:
            features[entry.key] = np.zeros(0, np.int64)  # without a kind: an empty list
            continue
        values = getattr(entry.value, kind).value
        if kind == "bytes_list":
            features[entry.key] = list(values)
        else:
            features[entry.key] = np.fromiter(values, DTYPES[kind], len(values))
    return features


def kind_of(values: np.ndarray | list[bytes]) -> str:
    """The kind of a feature's values, for messages."""
    if isinstance(values, list):
        return "bytes"
    return "int64" if values.dtype == np.int64 else "float"


@cache
def _example() -> tuple[Any, type[Exception]]:
    """(Class of the message, the exception it raises); built once."""
    try:
        from google.protobuf import descriptor_pb2, descriptor_pool, message, message_factory
    except ImportError as error:
        raise ImportError(
            "TFRecord examples: protobuf is missing: pip install 'efficientids-flax[data]'"
        ) from error
    package = "efficientids_flax.example"
    field = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name=f"{package}.proto", package=package)
    file.syntax = "proto3"
    for name, fields in MESSAGES.items():
        made = file.message_type.add(name=name)
        if name == "Feature":
            made.oneof_decl.add(name="kind")
        for called, (number, kind, repeated) in fields.items():
            one = made.field.add(name=called, number=number)
            one.label = field.LABEL_REPEATED if repeated else field.LABEL_OPTIONAL
            if kind in MESSAGES:
                one.type, one.type_name = field.TYPE_MESSAGE, f".{package}.{kind}"
            else:
                one.type = getattr(field, f"TYPE_{kind.upper()}")
            if name == "Feature":
                one.oneof_index = 0
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file) if hasattr(pool, "Add") else pool.AddSerializedFile(file.SerializeToString())
    described = pool.FindMessageTypeByName(f"{package}.Example")
    return message_factory.GetMessageClass(described), message.DecodeError
