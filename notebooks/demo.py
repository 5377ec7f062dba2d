"""Classify questions of bank customers, search over scorers, and predict the sentiment of tweets, in about three minutes.

Run with ``make demo``. The data are in ``notebooks/data``; its README describes them.
"""

import time
from pathlib import Path

import pandas as pd
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import accuracy_score, f1_score, r2_score
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline

from sklearn_gliclass import GLiClassClassifier, GLiClassRegressor

DATA = Path(__file__).parent / "data"
N_INTENTS, N_TRAIN, N_GRID, N_TWEETS = 10, 300, 120, 500


def read(name: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    return tuple(pd.read_csv(DATA / f"{name}.{part}.csv.gz", keep_default_na=False) for part in ("train", "test"))


def tfidf(model):
    return make_pipeline(TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True), model)


def timed_fit(model, X, y):
    start = time.perf_counter()
    return model.fit(X, y), time.perf_counter() - start


def classify(train: pd.DataFrame, test: pd.DataFrame) -> None:
    print(f"1. {N_INTENTS} intents of banking77: {len(train)} training examples, {len(test)} test examples")
    rows = []
    models = {
        "GLiClassClassifier": GLiClassClassifier(verbose=1, random_state=0),
        "TF-IDF + LogisticRegression": tfidf(LogisticRegression(C=10, max_iter=1000)),
    }
    for name, model in models.items():
        model, seconds = timed_fit(model, train["text"], train["label"])
        predicted = model.predict(test["text"])
        accuracy = accuracy_score(test["label"], predicted)
        rows.append((name, accuracy, f1_score(test["label"], predicted, average="macro"), seconds))
    print(pd.DataFrame(rows, columns=["model", "accuracy", "macro-F1", "seconds"]).round(3).to_string(index=False))


def search(train: pd.DataFrame) -> None:
    print(f"\n2. GridSearchCV over scorer_type: {len(train)} training examples, 2 folds, 6 epochs")
    print("   (all of them start as the cosine of text and label)")
    grid = GridSearchCV(
        GLiClassClassifier(max_epochs=6, random_state=0),
        {"scorer_type": ["simple", "weighted-dot", "mlp", "hopfield"]},
        cv=2,
        refit=False,
        verbose=2,
    )
    grid.fit(train["text"], train["label"])
    table = pd.DataFrame(grid.cv_results_)[["param_scorer_type", "mean_test_score", "std_test_score", "mean_fit_time"]]
    print(table.sort_values("mean_test_score", ascending=False).round(3).to_string(index=False))


def predict_sentiment(train: pd.DataFrame, test: pd.DataFrame) -> None:
    print(f"\n3. Sentiment of tweets, -4 to 4: {len(train)} training examples, {len(test)} test examples")
    rows = []
    models = {
        "GLiClassRegressor": GLiClassRegressor(max_epochs=3, verbose=1, random_state=0),
        "TF-IDF + Ridge": tfidf(Ridge()),
    }
    for name, model in models.items():
        model, seconds = timed_fit(model, train["text"], train["sentiment"])
        rows.append((name, r2_score(test["sentiment"], model.predict(test["text"])), seconds))
    print(pd.DataFrame(rows, columns=["model", "R2", "seconds"]).round(3).to_string(index=False))


def main() -> None:
    train, test = read("banking77")
    intents = sorted(train["label"].unique())[:N_INTENTS]
    train = train[train["label"].isin(intents)].head(N_TRAIN)
    classify(train, test[test["label"].isin(intents)])
    search(train.head(N_GRID))
    tweets, test_tweets = read("vader_tweets")
    predict_sentiment(tweets.head(N_TWEETS), test_tweets)


if __name__ == "__main__":
    main()
