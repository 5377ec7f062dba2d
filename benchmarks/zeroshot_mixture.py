"""Training mixture of zeroshot_train.py: data sets of a folder, some of the shared ones, and written tasks.

``zeroshot_written`` holds small tasks, one per line, that a language model wrote for this training: class names, other
wordings of each, and texts with their class. The model card describes their overlap with public data sets. Its folder
``untrained`` holds the held-out tasks of ``zeroshot.py --written``.

Data sets whose texts may not be licensed by their authors are excluded. The held-out shared data sets are banking77,
customer_reviews, nlupp_intents, sms_spam, snips, subjectivity, trec6, tweet_emotion and tweet_sentiment. Of each movie
review, some passages are used, with the sentiment of the review.
"""

import gzip
import json
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pandas as pd

WORDINGS = Path(__file__).with_name("zeroshot_wordings.json")
WRITTEN = Path(__file__).with_name("zeroshot_written")
UNTRAINED = WRITTEN / "untrained"
LEFT_OUT = ("clickbait", "counselling_questions", "crisis_tweets", "privacy_questions", "programming_languages")
# Lower weights for pairs of texts, and for properties of form instead of content.
WEIGHTS = {
    "monotonicity_entailment": 0.2, "lexical_inference": 0.2, "word_relations": 0.3, "citation_intent": 0.5,
    "question_wellformedness": 0.3, "sentence_types": 0.5, "assistant_dialogue_acts": 0.5, "hate_check": 0.7,
    "sexism": 0.6, "sexism_types": 0.6, "forum_hate_speech": 0.6, "terms_of_service_clauses": 0.7,
    "go_emotions": 2.0, "vader_amazon": 2.0, "vader_tweets": 2.0, "movie_reviews": 2.5, "netflix_genres": 1.0,
    "clinc150": 1.5, "emobank_valence": 1.0, "emobank_arousal": 0.3,
}  # fmt: skip
WRITTEN_WEIGHT = 2.0  # of the many small tasks in zeroshot_written: about 7 of 10 batches
NAME_SHARES = (1.0, 0.5, 0.5, 0.0)  # probability of a label's own name instead of another wording
FRAMES = ("{}", "{}", "{}", "This text is about {}.", "about {}", "topic: {}", "{}?", "This is an example of {}.",
          "category: {}", "The text belongs to the class {}.")  # fmt: skip

SENTIMENT = {
    "positive": ["positive sentiment", "praise", "the author likes it", "a good review", "happy and satisfied",
                 "favourable opinion", "good news", "This is positive feedback.", "joy or approval", "optimistic"],
    "negative": ["negative sentiment", "a complaint", "the author dislikes it", "a bad review", "disappointed or angry",
                 "unfavourable opinion", "bad news", "This is negative feedback.", "criticism", "pessimistic"],
    "neutral": ["neutral sentiment", "no opinion", "neither positive nor negative", "a plain statement of fact",
                "objective and unemotional", "No feeling is expressed."],
}  # fmt: skip
VALENCE = {
    "pleasant": ["positive", "something pleasant", "a happy feeling", "good"],
    "unpleasant": ["negative", "something unpleasant", "an unhappy feeling", "bad"],
    "neutral": ["neither pleasant nor unpleasant", "no emotion", "matter-of-fact"],
}
AROUSAL = {
    "excited": ["strong emotion", "agitated", "intense", "The writer is stirred up."],
    "calm": ["little emotion", "relaxed", "quiet", "The writer is calm."],
}


@dataclass
class Task:
    """Texts of a data set with indicators (texts, labels), and further wordings of each label."""

    name: str
    texts: list[str]
    labels: list[str]
    targets: np.ndarray
    wordings: dict[str, list[str]] = field(default_factory=dict)
    weight: float | None = None  # sampling weight, times the square root of its rows; None: from WEIGHTS

    def __post_init__(self):
        if self.weight is None:
            self.weight = WEIGHTS.get(self.name, 1.0)

    def wordings_of(self, labels, rng) -> list[str]:
        """Sample a wording of each label: names, other wordings, or both, with one frame or several for the names."""
        share, frame = NAME_SHARES[rng.randint(len(NAME_SHARES))], None
        if rng.rand() < 0.5:
            frame = FRAMES[rng.randint(len(FRAMES))]
        return [self._wording(label, share, frame, rng) for label in labels]

    def _wording(self, k: int, name_share: float, frame: str | None, rng) -> str:
        name = self.labels[k]
        others = self.wordings.get(name, [])
        if others and rng.rand() >= name_share:
            return others[rng.randint(len(others))]
        return (frame or FRAMES[rng.randint(len(FRAMES))]).format(name)


def load_mixture(folder: Path, shared: Path) -> list[Task]:
    wordings = json.loads(WORDINGS.read_text(encoding="utf-8"))
    tasks = []
    for entry in json.loads((folder / "sets.json").read_text(encoding="utf-8")):
        name = entry["name"]
        if name not in LEFT_OUT:
            frame = read(folder / f"{name}.csv.gz")
            tasks.append(one_hot(name, frame.text, frame.label, wordings.get(name, {})))
    tasks.append(one_hot("clinc150", *columns(shared, "clinc150", "text", "label"), {}))
    for name in ("go_emotions", "netflix_genres"):
        texts, labels = columns(shared, name, "text", "labels")
        tasks.append(multi_hot(name, texts, labels.str.split("|"), wordings.get(name, {})))
    for name in ("vader_amazon", "vader_tweets"):
        texts, value = columns(shared, name, "text", "sentiment")
        tasks.append(by_value(name, texts, value.astype(float), 0.6, 0.25, tuple(SENTIMENT), SENTIMENT))
    tasks.append(review_passages(*columns(shared, "movie_reviews", "text", "label")))
    texts, valence, arousal = columns(shared, "emobank", "text", "valence", "arousal")
    tasks.append(by_value("emobank_valence", texts, valence.astype(float) - 3, 0.4, 0.05, tuple(VALENCE), VALENCE))
    tasks.append(by_value("emobank_arousal", texts, arousal.astype(float) - 3, 0.4, 0.0, tuple(AROUSAL), AROUSAL))
    return tasks + written_tasks()


def written_tasks(paths=None) -> list[Task]:
    """Read the tasks of some files; by default, those of the training."""
    paths = sorted(WRITTEN.glob("*.jsonl")) if paths is None else paths
    lines = [line for path in paths for line in path.read_text(encoding="utf-8").splitlines()]
    tasks = []
    for entry in map(json.loads, lines):
        texts, labels = map(pd.Series, zip(*entry["texts"], strict=True))
        tasks.append(replace(one_hot(entry["task"], texts, labels, entry["labels"]), weight=WRITTEN_WEIGHT))
    return tasks


def read(path: Path) -> pd.DataFrame:
    with gzip.open(path, "rt", encoding="utf-8") as file:
        return pd.read_csv(file, keep_default_na=False, dtype=str)


def columns(shared: Path, name: str, *names: str) -> list[pd.Series]:
    frame = read(shared / f"{name}.train.csv.gz")
    return [frame[column] for column in names]


def one_hot(name, texts, labels, wordings) -> Task:
    return multi_hot(name, texts, labels.map(lambda label: [label]), wordings)


def multi_hot(name, texts, labels, wordings) -> Task:
    classes = sorted({label for row in labels for label in row if label})
    place = {label: k for k, label in enumerate(classes)}
    targets = np.zeros((len(texts), len(classes)), bool)
    for row, own in enumerate(labels):
        targets[row, [place[label] for label in own if label]] = True
    spoken = [label.replace("_", " ") for label in classes]
    return Task(name, list(texts), spoken, targets, {k.replace("_", " "): v for k, v in wordings.items()})


def review_passages(reviews, labels, each: int = 4) -> Task:
    """Sample passages of 2 to 6 sentences, more of them from the end, where opinions are."""
    rng = np.random.RandomState(0)
    texts, sentiments = [], []
    for review, label in zip(reviews, labels, strict=True):
        sentences = review.split(" . ")
        for _ in range(each):
            n = rng.randint(2, 7)
            start = int(max(0, len(sentences) - n) * rng.rand() ** 0.5)
            texts.append(" . ".join(sentences[start : start + n]))
            sentiments.append(label)
    return one_hot("movie_reviews", texts, pd.Series(sentiments), SENTIMENT)


def by_value(name, texts, value, far: float, near: float, classes, wordings) -> Task:
    """Build classes of a number: above `far`, below -`far`, and, with a third class, within `near`."""
    value = value.to_numpy()
    targets = np.stack([value > far, value < -far, np.abs(value) <= near][: len(classes)], axis=1)
    kept = targets.any(axis=1)
    return Task(name, list(texts[kept]), list(classes), targets[kept], wordings)
