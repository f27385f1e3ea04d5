"""The complete requests of one turn of the event loop, whose bodies are decoded together in the next turn."""

from __future__ import annotations

from mlapp.serving.inference.queued_request import QueuedRequest


class Arrivals:
    """The requests that are not decoded yet, in order, and their bodies.

    The caller that adds the first one schedules `Batcher.read_arrivals`.
    """

    __slots__ = ("bodies", "has_keys", "requests")

    def __init__(self) -> None:
        self.requests: list[QueuedRequest] = []
        self.bodies: list[bytes] = []
        self.has_keys = False
        """Whether a decoded request has business keys. It stays set until the caller resets it."""

    def decode_arrivals(self) -> tuple[list[QueuedRequest], int]:
        """Decode each body, and clear the collection.

        Returns:
            The decoded requests, and the sum of their rows. Requests with an invalid body are already answered, and
            those whose clients have disconnected are dropped.
        """
        if not self.requests:
            return [], 0
        requests, bodies = self.requests, self.bodies
        self.requests, self.bodies = [], []
        model = requests[0].model
        decoded: list[QueuedRequest] = []
        rows = 0
        for request, body, part in zip(requests, bodies, model.codec.decode_several(bodies), strict=True):
            if request.response_complete:
                continue
            if part is None or request.model is not model:
                try:
                    part = request.model.codec.decode_json(body)
                except Exception as error:  # it must not prevent the decoding of the other requests
                    request.finish_request(error)
                    continue
                self.has_keys |= part.keys is not None
            part.id = request.identity
            request.part = part
            rows += part.rows
            decoded.append(request)
        return decoded, rows
