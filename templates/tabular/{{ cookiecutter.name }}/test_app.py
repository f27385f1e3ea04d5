from app import app


def test_a_model_learns_and_predicts() -> None:
    trained = app.train(n_estimators=20)
    assert set(trained.metrics) == {"train", "test"}

    one = trained.schema.features.example_inputs()
    assert len(app.predict(one)) == 1
