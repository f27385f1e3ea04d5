"""A runtime for MLServer (https://mlserver.readthedocs.io) that serves a version of an app from an exported folder.

It reads and writes tensors as `mlapp serve` does at /v2. MLServer provides the HTTP and gRPC servers, metrics, and its
own batching if model-settings.json enables it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import aclosing, contextmanager
from typing import Any

from mlserver import MLModel
from mlserver.errors import MLServerError
from mlserver.types import InferenceRequest, InferenceResponse, MetadataTensor, RequestInput, ResponseOutput
from mlserver.utils import get_model_uri

from mlapp import bundle as bundles
from mlapp.schema.part import Part
from mlapp.serving.inference.body_decoding import run_decoder
from mlapp.serving.inference.endpoint import Endpoint
from mlapp.serving.inference.served_model import ServedModel, load_served_model
from mlapp.serving.observability.metrics import Metrics
from mlapp.serving.protocols.open_inference import make_v2_metadata, predict_open_inference_tensors
from mlapp.serving.protocols.open_inference_request import accept_v2_tensors
from mlapp.serving.protocols.tensor_decoding import make_tensor_from_values
from mlapp.serving.protocols.tensor_encoding import convert_predictions_to_tensors
from mlapp.serving.protocols.tensors import Tensor
from mlapp.serving.web.budget import Budget
from mlapp.serving.web.problems import make_http_error


class MlappRuntime(MLModel):
    """The model in the bundle that `parameters.uri` of model-settings.json names."""

    async def load(self) -> bool:
        """Load the model, and predict its own example.

        Raises:
            BundleError: the folder was changed. ModelError: the model cannot be loaded, or cannot predict its example.
        """
        bundle = await asyncio.to_thread(bundles.open, await get_model_uri(self.settings))
        project = bundle.project
        settings = project.settings.serve
        model = await asyncio.to_thread(
            load_served_model, project.app, bundle.manifest.version, project.store, settings
        )
        self._endpoint = Endpoint(project.app, model, settings, Metrics())
        await self._endpoint.start_model()
        about = make_v2_metadata(self._endpoint)
        self.inputs = [MetadataTensor(**tensor) for tensor in about["inputs"]]
        self.outputs = [MetadataTensor(**tensor) for tensor in about["outputs"]]
        return True

    async def unload(self) -> bool:
        """Stop the threads. MLServer also calls this after `load` has failed."""
        if hasattr(self, "_endpoint"):
            await self._endpoint.close_endpoint()
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """The predictions for a request of the Open Inference Protocol.

        Raises:
            MLServerError: with the status and text that `mlapp serve` answers with.
        """
        with _translate_mlserver_errors():
            if self._endpoint.current.is_stream:
                place = f"/v2/models/{self.name}/infer_stream"
                raise MLServerError(f"'{self.name}' streams its predictions: send to {place}.")
            budget = self._open_mlserver_budget()
            endpoint, model = self._endpoint, self._endpoint.current
            part = await self._accept_mlserver_payload(model, payload, budget)
            tensors = await predict_open_inference_tensors(endpoint, model, part, budget)
            return self._make_mlserver_answer(payload, tensors, model.version or "")

    async def predict_stream(
        self, payloads: AsyncIterator[InferenceRequest]
    ) -> AsyncGenerator[InferenceResponse, None]:
        """A response for each item that the predictor yields; one response if it does not yield.

        Raises:
            MLServerError: as for `predict`.
        """
        payload = await anext(payloads)
        model = self._endpoint.current
        if not model.is_stream:
            yield await self.predict(payload)
            return
        with _translate_mlserver_errors():
            budget = self._open_mlserver_budget()
            part = await self._accept_mlserver_payload(model, payload, budget)
            schema = model.predictor.schema.predictions

            def convert_item(item: Any) -> list[Tensor]:
                return convert_predictions_to_tensors([item], schema)

            batches = self._endpoint.streams.stream_items(model, part, budget.timeout, convert_item)
            async with aclosing(batches):
                async for items in batches:
                    for tensors in items:
                        yield self._make_mlserver_answer(payload, tensors, model.version or "")

    async def _accept_mlserver_payload(self, model: ServedModel, payload: InferenceRequest, budget: Budget) -> Part:
        """The features in a request's tensors."""
        codec, tensors = model.codec, _read_mlserver_tensors(payload, budget)
        size = sum(tensor.array.nbytes for tensor in tensors)
        raw = await run_decoder(lambda: accept_v2_tensors(codec.reader, tensors), size, budget)
        return await self._endpoint.decoding.load_features(codec, raw, size, budget)

    def _open_mlserver_budget(self) -> Budget:
        settings = self._endpoint.settings
        return Budget(settings, settings.timeout)

    def _make_mlserver_answer(
        self, payload: InferenceRequest, tensors: list[Tensor], version: str
    ) -> InferenceResponse:
        if payload.outputs:
            requested = [output.name for output in payload.outputs]
            tensors_by_name = {tensor.name: tensor for tensor in tensors}
            if missing := [name for name in requested if name not in tensors_by_name]:
                raise MLServerError(
                    f"There is no output '{missing[0]:.60}'; the outputs are {', '.join(sorted(tensors_by_name))}."
                )
            tensors = [tensor for tensor in tensors if tensor.name in requested]
        outputs = [
            ResponseOutput(
                name=tensor.name, shape=tensor.shape, datatype=tensor.datatype, data=_list_mlserver_values(tensor)
            )
            for tensor in tensors
        ]
        return InferenceResponse(model_name=self.name, model_version=version or None, id=payload.id, outputs=outputs)


def _read_mlserver_tensors(payload: InferenceRequest, budget: Budget) -> list[Tensor]:
    """The request's tensors.

    Raises:
        HttpError: 400, values do not have the tensor's datatype or shape.
    """
    return [
        make_tensor_from_values(
            request_input.name,
            _read_mlserver_datatype(request_input),
            request_input.shape,
            _read_mlserver_values(request_input),
            budget,
        )
        for request_input in payload.inputs
    ]


def _read_mlserver_datatype(request_input: RequestInput) -> str:
    """The datatype's name. It is an enumeration over HTTP and a text over gRPC."""
    return str(getattr(request_input.datatype, "value", request_input.datatype))


def _read_mlserver_values(request_input: RequestInput) -> Any:
    """The tensor's values, without MLServer's wrapper. gRPC's raw bytes have no wrapper."""
    values = getattr(request_input.data, "root", request_input.data)
    return values if hasattr(values, "dtype") or isinstance(values, list) else list(values)


def _list_mlserver_values(tensor: Tensor) -> list[Any]:
    """The values as a flat list; texts as bytes, which both of MLServer's protocols support."""
    if tensor.datatype == "BYTES":
        return [str(text).encode() for text in tensor.array.ravel()]
    values: list[Any] = tensor.array.ravel().tolist()
    return values


@contextmanager
def _translate_mlserver_errors() -> Iterator[None]:
    """Raise errors in MLServer's form: the text, and the protocol's status for wrong inputs."""
    try:
        yield
    except MLServerError:
        raise
    except Exception as error:  # `make_http_error` knows what each means to a client
        problem = make_http_error(error)
        raise MLServerError(problem.detail, 400 if problem.status == 422 else problem.status) from error
