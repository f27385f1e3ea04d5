"""Deploys releases and canaries to an endpoint, and restores the live release after a failure.

SageMaker has no lock. Of two concurrent deploys, the second one finds its release number taken (`CreateModel`) or the
endpoint busy (`UpdateEndpoint`), and changes nothing.
"""

from __future__ import annotations

from mlapp.config import Serve
from mlapp.deploy.release_record import ReleaseRecord, make_release_record
from mlapp.deploy.sagemaker import documents
from mlapp.deploy.sagemaker.endpoint import BUSY, READY, ConcurrentDeployError, Endpoint
from mlapp.deploy.target import DeployError, Shipment
from mlapp.reporting import Reporter
from mlapp.request_body import RequestBody


class Deployment:
    """One change of an endpoint."""

    def __init__(self, endpoint: Endpoint, serve: Serve, progress: Reporter) -> None:
        self._endpoint = endpoint
        self._serve = serve
        self._progress = progress

    def ship_release(self, shipment: Shipment, note: str | None) -> ReleaseRecord:
        """Make a shipment the live release.

        Raises:
            DeployError: there is a canary, another deploy is in progress, or the release did not become ready; the
                previous release is live.
        """
        endpoint = self._endpoint
        current = endpoint.describe()
        live, canary = endpoint.find_numbers(current)
        if canary is not None:
            raise DeployError(
                f"Release {canary} is still a canary; nothing was changed.",
                "Run `mlapp promote` or `mlapp abort` first.",
            )
        self._require_idle_endpoint()
        record = self._create_endpoint_release(shipment, note)
        config = documents.name_endpoint_release(endpoint.name, record.number)
        try:
            endpoint.switch_config(config, (record.number,), self._progress)
            self._check_endpoint_prediction(record)
        except ConcurrentDeployError:
            endpoint.record_state(record.number, "failed")
            raise
        except DeployError as error:
            endpoint.record_state(record.number, "failed")
            if live is None:
                raise DeployError(
                    f"Release {record.number} failed: {error.what}",
                    f"{error.todo} There is no earlier release; `mlapp delete` removes the created resources.",
                ) from error
            self._restore_live_endpoint(live, config)
            raise DeployError(
                f"Release {record.number} failed: {error.what}\nRolled back: release {live} is live.", error.todo
            ) from error
        self._trim_endpoint_releases(record.number)
        return record

    def start_canary(self, shipment: Shipment, percent: int) -> ReleaseRecord:
        """Start a second variant with `percent` of the weight.

        Raises:
            DeployError: nothing is live, another deploy is in progress, or the canary failed and was removed.
        """
        endpoint = self._endpoint
        live = self._require_endpoint_without_canary()
        record = self._create_endpoint_release(shipment, f"began as a canary at {percent} %")
        config = documents.name_canary_config(endpoint.name, live, record.number)
        try:
            endpoint.create_config({live: 100 - percent, record.number: percent})
            endpoint.switch_config(config, (live, record.number), self._progress)
            self._check_endpoint_prediction(record)
        except ConcurrentDeployError:
            endpoint.delete_config(config)
            endpoint.record_state(record.number, "failed")
            raise
        except DeployError as error:
            self._restore_live_endpoint(live, config)
            endpoint.delete_config(config)
            endpoint.record_state(record.number, "failed")
            raise DeployError(
                f"The canary failed: {error.what}\nIt was removed; release {live} is live.", error.todo
            ) from error
        return record

    def promote_canary(self) -> int:
        """Route all traffic to the canary, then stop the live release's instances; returns the canary's number."""
        live, canary = self._endpoint.require_canary()
        self._finish_endpoint_canary(canary, live, canary)
        return canary

    def abort_canary(self) -> int:
        """Route all traffic to the live release, then stop the canary's instances; returns the canary's number."""
        live, canary = self._endpoint.require_canary()
        self._finish_endpoint_canary(live, live, canary)
        self._endpoint.record_state(canary, "aborted")
        return canary

    def _finish_endpoint_canary(self, winner: int, live: int, canary: int) -> None:
        endpoint = self._endpoint
        self._require_idle_endpoint()
        endpoint.set_weights({number: 100 if number == winner else 0 for number in (live, canary)})
        self._progress(f"release {winner} gets all traffic")
        endpoint.switch_config(documents.name_endpoint_release(endpoint.name, winner), (winner,), self._progress)
        endpoint.delete_config(documents.name_canary_config(endpoint.name, live, canary))

    def _create_endpoint_release(self, shipment: Shipment, note: str | None) -> ReleaseRecord:
        """Create the Model and configuration of a release with the next number."""
        endpoint = self._endpoint
        with endpoint.session.translate_errors():
            author = endpoint.session.client("sts").get_caller_identity()["Arn"]
        number = max((record.number for record, _ in endpoint.list_records()), default=0) + 1
        record = make_release_record(shipment, number, author, note)
        endpoint.create_model(self._serve, record)
        self._progress(f"release {number}: Model/{documents.name_endpoint_release(endpoint.name, number)}")
        return record

    def _restore_live_endpoint(self, live: int, failed_config: str) -> None:
        """Switch back to the live release's configuration, unless SageMaker or another deploy replaced the failed one.

        Args:
            failed_config: the name of the failed configuration.
        """
        endpoint = self._endpoint
        name = documents.name_endpoint_release(endpoint.name, live)
        current = endpoint.describe()
        is_live = current is not None and current["EndpointConfigName"] == name
        if current is not None and current["EndpointConfigName"] not in (name, failed_config):
            raise ConcurrentDeployError(endpoint.name, f"it runs {current['EndpointConfigName']}")
        if current is None or not is_live or current["EndpointStatus"] != READY:
            endpoint.switch_config(name, (live,), self._progress)
        self._progress(f"rolled back to release {live}")

    def _check_endpoint_prediction(self, record: ReleaseRecord) -> None:
        if record.example is None:
            return
        variant = documents.name_endpoint_variant(record.number)
        response = self._endpoint.invoke(RequestBody.of(record.example), variant)
        self._progress(f"variant {variant} answers: {str(response['predictions'])[:60]}")

    def _trim_endpoint_releases(self, live: int) -> None:
        endpoint = self._endpoint
        records = [record.number for record, _ in endpoint.list_records() if record.number != live]
        for number in records[: max(0, len(records) - endpoint.settings.history + 1)]:
            endpoint.delete_release(number)

    def _require_idle_endpoint(self) -> None:
        current = self._endpoint.describe()
        if current is not None and current["EndpointStatus"] in BUSY:
            raise ConcurrentDeployError(self._endpoint.name, f"it is {current['EndpointStatus']}")

    def _require_endpoint_without_canary(self) -> int:
        """The number of the live release. Fails if nothing is live, there is a canary, or the endpoint is busy."""
        live, canary = self._endpoint.find_numbers()
        if live is None:
            raise DeployError("There is no live release, which a canary needs.", "Deploy once without --canary.")
        if canary is not None:
            raise DeployError(
                f"Release {canary} is still a canary; nothing was changed.",
                "Run `mlapp promote` or `mlapp abort` first.",
            )
        self._require_idle_endpoint()
        return live
