"""`mlapp eject rules` and `mlapp eject grafana`"""

from __future__ import annotations

from typing import Annotated

import typer

from mlapp.cli import output
from mlapp.cli.options import Environment


def eject_rules(
    operator: Annotated[
        bool, typer.Option("--operator", help="Print a PrometheusRule of the Prometheus operator.")
    ] = False,
    environment: Environment = None,
) -> None:
    """Print recording and alerting rules for Prometheus.

    The rules cover drift and missing, unusual and refused values across all pods of the app.

    Examples:

      mlapp eject rules > rules.yml && promtool check rules rules.yml

      mlapp eject rules --operator | kubectl apply -f -
    """
    import yaml

    from mlapp.monitoring.rules_file import make_prometheus_rule, make_rules
    from mlapp.project import Project

    project = Project.find(environment=environment)
    rules = make_rules(project.name, project.settings.monitor)
    document = make_prometheus_rule(project.name, rules) if operator else rules
    output.print_text(yaml.safe_dump(document, sort_keys=False, width=120))


def eject_grafana(environment: Environment = None) -> None:
    """Print a Grafana dashboard.

    It shows the metrics recorded by `mlapp eject rules`, requests and latency.

    Example:

      mlapp eject grafana > dashboard.json
    """
    from mlapp.monitoring.rules_file import make_dashboard
    from mlapp.project import Project

    output.print_json(make_dashboard(Project.find(environment=environment).name))
