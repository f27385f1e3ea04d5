from flask import Flask, render_template, request
from mlapp import MlappError
from mlapp.flask import blueprint

from app import COLUMNS, app

site = Flask(__name__)
model = blueprint(app, model="production", follow=True)
site.register_blueprint(model)  # /predict, /model, /readyz, /metrics, ...


@site.get("/")
def show_page() -> str:
    """The form, and the species of the flower in it."""
    flower = {name: request.args.get(name, type=float) for name in COLUMNS}
    species = error = None
    if None not in flower.values():
        try:
            [species] = model.predict(flower)
        except MlappError as found:
            error = found.what
    return render_template("page.html", flower=flower, species=species, error=error)
