"""Names of objects: always valid, always the same, never two apps in one."""

from __future__ import annotations

import re

import pytest

from mlapp.deploy.cluster.naming import Names, make_dns_label, make_label_value

NAMES = ["digits", "My_App", "my-app", "my app", "3d", "émile", "a" * 200, "-x-", "x" * 39 + "-y", "数字", "a.b"]


@pytest.mark.parametrize("name", NAMES)
def test_any_name_becomes_a_dns_label(name):
    names = Names(name)

    for derived in (
        names.base,
        names.canary,
        names.lock,
        names.config_name("x"),
        names.release_name(123456),
        names.volume_name(name),
    ):
        assert re.fullmatch(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?", derived)


def test_different_apps_never_share_a_name():
    assert len({make_dns_label(name) for name in NAMES}) == len(NAMES)


def test_a_good_name_stays():
    assert make_dns_label("house-prices") == "house-prices"


def test_a_derived_name_is_stable():
    assert make_dns_label("My_App") == "my-app-0e86b84b" == make_dns_label("My_App")


def test_labels_hold_what_they_can():
    assert make_label_value("team a/b") == "team-a-b"
    assert len(make_label_value("x" * 100)) == 63
