"""A source makes a reader with declared parameters."""

import inspect
from datetime import date

import pytest

from mlapp.data.source import declared, reader, report_source_rows, watch_source_rows


def example(**parameters):
    return reader("example", "Rows of an example.", lambda values: values, declared(parameters))


def test_a_type_is_a_required_parameter_and_a_value_a_default():
    read = example(since=date, limit=10, tags=list[str], city=str | None, any=None)
    parameters = inspect.signature(read).parameters
    required = {name for name, parameter in parameters.items() if parameter.default is inspect.Parameter.empty}
    assert required == {"since", "tags", "city"}
    assert parameters["limit"].annotation is int
    assert read(since=date(2026, 1, 1), tags=[], city=None) == {
        "since": date(2026, 1, 1), "limit": 10, "tags": [], "city": None, "any": None,
    }  # fmt: skip


def test_it_behaves_like_a_function_of_those_parameters():
    read = example(since=date)
    assert (read.__name__, read.__doc__) == ("read_example", "Rows of an example.")
    with pytest.raises(TypeError, match="since"):
        read()
    with pytest.raises(TypeError, match="sinse"):
        read(since=1, sinse=2)


def test_who_watches_hears_of_each_batch():
    messages = []
    with watch_source_rows(messages.append):
        report_source_rows(3)
        report_source_rows(4)
    report_source_rows(5)
    assert messages == [3, 4]
