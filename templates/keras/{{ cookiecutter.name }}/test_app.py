from app import app


def test_a_model_learns_and_predicts() -> None:
    trained = app.train(limit=300)
    assert trained.metrics["test"]["accuracy"] > 0.8

    one = trained.schema.features.example_inputs()
    assert app.predict(one)[0] in range(10)
