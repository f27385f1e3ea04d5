"""The messages of the Open Inference Protocol v2 over gRPC, created at run time.

https://github.com/kserve/open-inference-protocol/blob/main/specification/protocol/open_inference_grpc.proto. They have
a separate pool, because another library in this process can define messages of the same names.
"""

from __future__ import annotations

from functools import cache
from typing import Any

PACKAGE = "inference"
SCALARS = {
    "double": 1,
    "float": 2,
    "int64": 3,
    "uint64": 4,
    "int32": 5,
    "bool": 8,
    "string": 9,
    "bytes": 12,
    "uint32": 13,
}
"""Numbers of `FieldDescriptorProto.Type`."""
MESSAGE = 11
OPTIONAL, REPEATED = 1, 3
PARAMETERS = "map InferParameter parameters"
MESSAGES: dict[str, list[str]] = {
    "ServerLiveRequest": [],
    "ServerLiveResponse": ["bool live = 1"],
    "ServerReadyRequest": [],
    "ServerReadyResponse": ["bool ready = 1"],
    "ModelReadyRequest": ["string name = 1", "string version = 2"],
    "ModelReadyResponse": ["bool ready = 1"],
    "ServerMetadataRequest": [],
    "ServerMetadataResponse": ["string name = 1", "string version = 2", "repeated string extensions = 3"],
    "ModelMetadataRequest": ["string name = 1", "string version = 2"],
    "ModelMetadataResponse": [
        "string name = 1",
        "repeated string versions = 2",
        "string platform = 3",
        "repeated TensorMetadata inputs = 4",
        "repeated TensorMetadata outputs = 5",
    ],
    "TensorMetadata": ["string name = 1", "string datatype = 2", "repeated int64 shape = 3"],
    "ModelInferRequest": [
        "string model_name = 1",
        "string model_version = 2",
        "string id = 3",
        f"{PARAMETERS} = 4",
        "repeated InferInputTensor inputs = 5",
        "repeated InferRequestedOutputTensor outputs = 6",
        "repeated bytes raw_input_contents = 7",
    ],
    "InferInputTensor": [
        "string name = 1",
        "string datatype = 2",
        "repeated int64 shape = 3",
        f"{PARAMETERS} = 4",
        "InferTensorContents contents = 5",
    ],
    "InferRequestedOutputTensor": ["string name = 1", f"{PARAMETERS} = 2"],
    "ModelInferResponse": [
        "string model_name = 1",
        "string model_version = 2",
        "string id = 3",
        f"{PARAMETERS} = 4",
        "repeated InferOutputTensor outputs = 5",
        "repeated bytes raw_output_contents = 6",
    ],
    "InferOutputTensor": [
        "string name = 1",
        "string datatype = 2",
        "repeated int64 shape = 3",
        f"{PARAMETERS} = 4",
        "InferTensorContents contents = 5",
    ],
    "InferParameter": ["bool bool_param = 1", "int64 int64_param = 2", "string string_param = 3"],
    "InferTensorContents": [
        "repeated bool bool_contents = 1",
        "repeated int32 int_contents = 2",
        "repeated int64 int64_contents = 3",
        "repeated uint32 uint_contents = 4",
        "repeated uint64 uint64_contents = 5",
        "repeated float fp32_contents = 6",
        "repeated double fp64_contents = 7",
        "repeated bytes bytes_contents = 8",
    ],
}


@cache
def find_message_class(name: str) -> Any:
    """The Python class of a message."""
    from google.protobuf import message_factory

    return message_factory.GetMessageClass(_make_message_pool().FindMessageTypeByName(f"{PACKAGE}.{name}"))


@cache
def _make_message_pool() -> Any:
    from google.protobuf import descriptor_pb2, descriptor_pool

    file = descriptor_pb2.FileDescriptorProto(name="open_inference.proto", package=PACKAGE, syntax="proto3")
    for name, lines in MESSAGES.items():
        message = file.message_type.add(name=name)
        for line in lines:
            _add_message_field(message, line)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return pool


def _add_message_field(message: Any, line: str) -> None:
    """Add a field from its declaration, `[repeated|map] TYPE NAME = NUMBER`, as in a .proto file."""
    declared, _, number = line.partition(" = ")
    *label, kind, name = declared.split()
    field = message.field.add(name=name, number=int(number), label=REPEATED if label else OPTIONAL)
    if label == ["map"]:  # on the wire, a map is repeated entries of a key and a value
        entry = message.nested_type.add(name="ParametersEntry")
        entry.options.map_entry = True
        _add_message_field(entry, "string key = 1")
        _add_message_field(entry, f"{kind} value = 2")
        field.type, field.type_name = MESSAGE, f".{PACKAGE}.{message.name}.ParametersEntry"
    elif kind in SCALARS:
        field.type = SCALARS[kind]
    else:
        field.type, field.type_name = MESSAGE, f".{PACKAGE}.{kind}"
