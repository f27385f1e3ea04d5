from pathlib import Path

import pandas as pd
from transformers import BertTokenizer, DistilBertConfig, DistilBertForSequenceClassification, Pipeline, pipeline

from mlapp import App

app = App("{{ cookiecutter.name }}", target="kind")


@app.data_reader
def read(limit: int | None = None) -> pd.DataFrame:
    return pd.read_csv(Path(__file__).parent / "data/messages.csv").head(limit)


@app.model
def build(weights: str | None = None, size: int = 64) -> Pipeline:
    """From a folder of weights and their tokenizer (-p weights=distilbert), or a small untrained model."""
    if weights is not None:
        return pipeline("text-classification", model=weights, tokenizer=weights)
    messages = read()
    words = sorted(set(messages["text"].str.lower().str.findall(r"\w+").explode()))
    known = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words]
    tokenizer = BertTokenizer(vocab={word: number for number, word in enumerate(known)})
    config = DistilBertConfig(
        vocab_size=len(tokenizer),
        dim=size,
        hidden_dim=2 * size,
        n_layers=2,
        n_heads=4,
        initializer_range=0.1,  # a small model learns faster from larger initial weights
        num_labels=messages["kind"].nunique(),
    )
    model = DistilBertForSequenceClassification(config)
    return pipeline("text-classification", model=model, tokenizer=tokenizer)
