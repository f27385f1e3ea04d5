from app import app


def test_a_model_learns_and_predicts() -> None:
    trained = app.train()
    assert trained.metrics["test"]["accuracy"] > 0.5

    assert app.predict([{"text": "I was charged twice for my order"}])[0] in {"billing", "delivery", "technical"}
