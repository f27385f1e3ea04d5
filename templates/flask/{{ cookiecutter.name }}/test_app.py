from app import app
from web import site

FLOWER = {"sepal_length": 5.1, "sepal_width": 3.5, "petal_length": 1.4, "petal_width": 0.2}


def test_the_page_and_the_endpoint_name_the_species() -> None:
    app.train()
    app.store().promote(app.name, app.save().version, "production")
    client = site.test_client()
    assert "<strong>setosa</strong>" in client.get("/", query_string=FLOWER).text
    assert client.post("/predict", json={"inputs": [FLOWER]}).json["predictions"] == ["setosa"]
    assert client.get("/readyz").status_code == 200
