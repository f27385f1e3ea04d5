"""Errors of a deploy: each message names the object and the cause."""

from __future__ import annotations

import pytest
import yaml
from api_double import ONE, TWO, ApiDouble, Refused, kubeconfig

from mlapp.deploy import DeployError


def read_error(act) -> str:
    with pytest.raises(DeployError) as caught:
        act()
    assert caught.value.todo
    return caught.value.what


def test_a_kubeconfig_with_a_key_twice(target, api, tmp_path):
    file = tmp_path / "twice"
    file.write_text(yaml.safe_dump(kubeconfig(api)) + "current-context: other\n")
    assert "has the key `current-context` twice, on lines" in read_error(lambda: target(kubeconfig=str(file)).status())


def test_no_kubeconfig(target, ship, monkeypatch, tmp_path):
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))

    assert "There is no kubeconfig" in read_error(lambda: target().apply(ship()))


def test_a_kubeconfig_that_is_none(target, ship, monkeypatch, tmp_path):
    (tmp_path / "bad").write_text("clusters: []\ncontexts: []\n")
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "bad"))

    assert "kubeconfig" in read_error(lambda: target().apply(ship()))


def test_a_context_that_is_not_there(target, ship):
    assert read_error(lambda: target(context="tset").apply(ship())) == (
        "The kubeconfig has no context 'tset'. Did you mean 'test'?"
    )


def test_a_login_that_has_expired(api, target, ship, tmp_path):
    file = tmp_path / "expired"
    file.write_text(yaml.safe_dump(kubeconfig(api, token="expired")))

    assert "wrong or has expired" in read_error(lambda: target(kubeconfig=str(file)).status())


@pytest.mark.parametrize(("command", "words"), [("no-such-login", "No such file"), ("false", "process returned 1")])
def test_a_failing_login_command_ends_the_deploy(api, target, ship, tmp_path, command, words):
    raw = kubeconfig(api)
    how = {"apiVersion": "client.authentication.k8s.io/v1", "command": command, "interactiveMode": "Never"}
    raw["users"][0]["user"] = {"exec": how}
    (tmp_path / "exec").write_text(yaml.safe_dump(raw))

    what = read_error(lambda: target(kubeconfig=str(tmp_path / "exec")).status())

    assert what.startswith("The login command of context test failed: ")
    assert words in what
    assert api.requests == []


@pytest.mark.parametrize("text", ["garbage", ": {[", "contexts: 3"])
def test_a_file_that_is_no_kubeconfig(target, tmp_path, text):
    (tmp_path / "text").write_text(text)

    assert "kubeconfig" in read_error(lambda: target(kubeconfig=str(tmp_path / "text")).status())


def test_a_server_that_does_not_answer(target, ship, tmp_path):
    gone = ApiDouble()
    gone.close()
    file = tmp_path / "gone"
    file.write_text(yaml.safe_dump(kubeconfig(gone)))

    assert "does not answer" in read_error(lambda: target(kubeconfig=str(file)).apply(ship()))


def test_asking_in_a_namespace_that_is_not_there(api, target, ship):
    for ask in (target(namespace="taem-a").status, target(namespace="taem-a").releases):
        assert read_error(ask) == "There is no namespace 'taem-a' in context test."

    assert target().releases() == []
    assert target().status().release is None

    def forbid(verb, plural, document):
        if plural == "namespaces":
            raise Refused(403, "Forbidden", "namespaces is forbidden")

    api.refuse = forbid
    assert target(namespace="taem-a").releases() == []


def test_a_cluster_that_is_too_old(api, target, ship):
    api.version = ("1", "27+")

    assert "is version 1.27; mlapp needs 1.30 or later" in read_error(lambda: target().apply(ship()))


def test_a_namespace_that_is_not_there(target, ship):
    assert "There is no namespace 'team-b' in context test" in read_error(
        lambda: target(namespace="team-b").apply(ship())
    )


def test_a_namespace_is_made_when_asked_for(api, target, ship):
    target(namespace={"name": "team-b", "create": True}, rollout={"check": False}).apply(ship())

    assert api.names("deployments", "team-b") == ["digits"]


@pytest.mark.parametrize(
    ("message", "words"),
    [
        (
            'deployments.apps "digits" is forbidden: User "bob" cannot create resource "deployments" in API group '
            '"apps" in the namespace "team-a"',
            "bob may not create deployments.apps in namespace team-a.",
        ),
        (
            'admission webhook "policy.example" denied the request: images must be signed',
            "Deployment/digits was refused by the cluster's policy 'policy.example': images must be signed",
        ),
        (
            'deployments.apps "digits" is forbidden: exceeded quota: few, requested: count/deployments.apps=1, '
            "used: count/deployments.apps=3, limited: count/deployments.apps=3",
            "Deployment/digits exceeds the namespace's quota 'few': requested: count/deployments.apps=1",
        ),
    ],
)
def test_a_refusal_comes_before_anything_is_written(api, target, ship, message, words):
    def refuse(verb, plural, document):
        if plural == "deployments" and verb == "create":
            raise Refused(403, "Forbidden", message)

    api.refuse = refuse

    assert words in read_error(lambda: target().apply(ship()))
    assert api.names("services") == []
    assert [name for name in api.names("configmaps") if "release" in name] == []


def test_a_server_that_goes_away_in_the_middle_says_what_is_written(api, target, ship, monkeypatch):
    monkeypatch.setattr("mlapp.deploy.cluster.transport.PATIENCE", 0.5)

    def away(verb, plural, document):
        if (verb, plural) == ("patch", "networkpolicies") and not document["dryRun"]:
            api.away = 10**6

    api.refuse = away
    what = read_error(lambda: target().apply(ship()))
    api.away, api.refuse = 0, lambda verb, plural, document: None

    assert "Written by then: ServiceAccount/digits, ConfigMap/" in what
    assert "not written: Service/digits, Deployment/digits" in what
    api.objects.pop(("leases", "team-a", "digits-deploy"), None)  # it ends by itself after 30 s
    assert target().apply(ship()).number == 1


@pytest.mark.parametrize(
    ("refused", "says"),
    [
        ("serviceaccounts", "There is no earlier release; nothing of it exists in the cluster."),
        ("deployments", "these objects are kept for inspection: "),
    ],
)
def test_a_refused_first_deploy_says_what_exists(api, target, ship, refused, says):
    """The server refuses a write after its dry run was accepted, as a quota that was used up in between does."""

    def refuse(verb, plural, document):
        if (verb, plural) == ("patch", refused) and not document["dryRun"]:
            raise Refused(403, "Forbidden", "exceeded quota: few, requested: a, used: b")

    api.refuse = refuse
    with pytest.raises(DeployError) as error:
        target().apply(ship())
    kinds = ("serviceaccounts", "services", "deployments", "networkpolicies", "poddisruptionbudgets")
    existing = [(kind, name) for kind in kinds for name in api.names(kind) if "default" not in name]
    assert says in error.value.todo
    assert bool(existing) == ("kept for inspection" in error.value.todo), existing
    assert ("ServiceAccount/digits" in error.value.todo) == bool(existing)
    assert "Deployment/digits" not in error.value.todo


def test_a_missing_operator_is_named(target, ship):
    assert read_error(lambda: target(gateway={"name": "public"}).apply(ship())) == (
        "The cluster does not know HTTPRoute: the Gateway API is not installed."
    )


def test_a_canary_by_weight_splits_exactly_and_is_removed(api, target, ship):
    api.operators.add("httproutes")
    settings = {"gateway": {"name": "public", "hosts": ["digits.example"]}, "replicas": 2}
    target(**settings).apply(ship())

    target(**settings).canary(ship(TWO, "2"), 10)
    assert target(**settings).status().traffic == {1: 90, 2: 10}

    assert target(**settings).abort().state == "aborted"
    backends = api.get("httproutes", "digits")["spec"]["rules"][0]["backendRefs"]
    assert [backend["name"] for backend in backends] == ["digits"]
    assert api.names("deployments") == ["digits"]
    assert api.names("services") == ["digits"]


def test_a_canary_that_fails_is_removed(api, target, ship):
    target(replicas=2).apply(ship())
    api.trouble[TWO] = "crash"

    assert "The canary failed" in read_error(lambda: target(replicas=2).canary(ship(TWO), 10))
    assert api.names("deployments") == ["digits"]
    assert api.get("services", "digits")["spec"]["selector"]["app.kubernetes.io/instance"] == "digits"


def test_a_canary_needs_a_release_to_be_beside(target, ship):
    assert "no live release" in read_error(lambda: target().canary(ship(ONE), 10))


def test_a_canary_with_too_few_requests_is_not_judged(target, ship):
    target().apply(ship())
    target().canary(ship(TWO, "2"), 10)

    assert "too few for a decision" in read_error(lambda: target().judge(0.1))
    assert target().status().canary.number == 2
    assert target().releases()[-1].by == "ada"
