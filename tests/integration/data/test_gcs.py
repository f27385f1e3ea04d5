"""Reading from Google Cloud Storage, as an emulator serves it."""

from collections.abc import Iterator

import pytest
from pyarrow import fs

from mlapp.data import files
from mlapp.errors import DataError
from tests import servers


@pytest.fixture(scope="module", autouse=True)
def bucket() -> Iterator[None]:
    with servers.gcs("sales") as address, pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", address)
        filesystem = fs.GcsFileSystem(endpoint_override=address.removeprefix("http://"), scheme="http", anonymous=True)
        for day in (1, 2):
            with filesystem.open_output_stream(f"sales/orders/day={day}/orders.csv") as file:
                file.write(f"id,item\n{day}1,tea\n{day}2,milk\n".encode())
        yield


def test_a_pattern_over_partitions():
    read = files.read("gs://sales/orders/day=*/*.csv")
    assert read["id"].to_list() == [11, 12, 21, 22]
    assert read["day"].to_list() == [1, 1, 2, 2]


def test_what_is_not_there():
    with pytest.raises(DataError, match=r"There is no file gs://sales/no.csv"):
        files.read("gs://sales/no.csv")
    with pytest.raises(DataError, match="gs://nobucket"):
        files.read("gs://nobucket/no/*.csv")
