import os

import django

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "web.settings")
django.setup()

from django.core.management import call_command
from django.test import Client

from app import app

FLOWER = {"sepal_length": 5.1, "sepal_width": 3.5, "petal_length": 1.4, "petal_width": 0.2}


def test_the_page_and_the_endpoint_name_the_species() -> None:
    app.train()
    app.store().promote(app.name, app.save().version, "production")
    call_command("check")
    client = Client()
    assert "<strong>setosa</strong>" in client.get("/", FLOWER).content.decode()
    answer = client.post("/predict", {"inputs": [FLOWER]}, content_type="application/json")
    assert answer.json()["predictions"] == ["setosa"]
    assert client.get("/readyz").status_code == 200
