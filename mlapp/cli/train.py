"""`mlapp train`"""

from __future__ import annotations

from mlapp.cli import output
from mlapp.cli.options import Environment, Json
from mlapp.cli.parameters import Parameters, parse


def train(parameter: Parameters = None, environment: Environment = None, json: Json = False) -> None:
    """Run the pipeline here; the result is a new model version.

    Examples:

      mlapp train

      mlapp train -p C=0.1 -p limit=500
    """
    from mlapp import training
    from mlapp.environment import git_state
    from mlapp.project import Project

    values = parse(parameter)
    project = Project.find(environment=environment)
    app = project.app
    project.store.check_writable()
    with output.progress() as tell:
        trained = training.run(app, values, progress=tell)
        tell("save")
        version = project.store.put(trained, git=git_state(project.root))
    if json:
        output.json(version.manifest)
        return
    columns = list(dict.fromkeys(name for metrics in trained.metrics.values() for name in metrics))
    output.table(
        ["split", *columns], [[split, *map(metrics.get, columns)] for split, metrics in trained.metrics.items()]
    )
    output.note(f"{app.name} version {version.version} is in the store. Next: mlapp serve")
