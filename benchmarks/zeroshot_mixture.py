"""What zeroshot_train.py learns from: the sets of a folder, some of the shared ones, and tasks written for it.

``zeroshot_written`` holds small tasks, one a line, that a language model wrote for this training: names of classes,
other wordings of each, and texts with their class. The model card says what they have in common with public sets.
Its folder ``untrained`` holds tasks that took no part in it: ``zeroshot.py --written`` judges by them.

Left out of the folder are sets whose texts belong to people who have not licensed them, as far as the tables say.
Held out of the shared sets, to judge by: banking77, nlupp_intents, sms_spam, snips, subjectivity, trec6. Of the movie
reviews some sentences each are taken, whose sentiment is that of the review.
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
# Two texts in one, or properties of form rather than of content: less of these.
WEIGHTS = {
    "monotonicity_entailment": 0.2, "lexical_inference": 0.2, "word_relations": 0.3, "citation_intent": 0.5,
    "question_wellformedness": 0.3, "sentence_types": 0.5, "assistant_dialogue_acts": 0.5, "hate_check": 0.7,
    "sexism": 0.6, "sexism_types": 0.6, "forum_hate_speech": 0.6, "terms_of_service_clauses": 0.7,
    "go_emotions": 2.0, "vader_amazon": 2.0, "vader_tweets": 2.0, "movie_reviews": 2.5, "netflix_genres": 1.0,
    "clinc150": 1.5, "emobank_valence": 1.0, "emobank_arousal": 0.3,
}  # fmt: skip
WRITTEN_WEIGHT = 3.0  # of the tasks in zeroshot_written, which are many and small: about 3 batches of 5
NAME_SHARE = 0.5  # how often a label goes by its own name
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
    """Texts of one set with indicators (texts, labels), and further wordings of each label."""

    name: str
    texts: list[str]
    labels: list[str]
    targets: np.ndarray
    wordings: dict[str, list[str]] = field(default_factory=dict)
    weight: float | None = None  # how often it is drawn, by the square root of its rows; None: as WEIGHTS says

    def __post_init__(self):
        if self.weight is None:
            self.weight = WEIGHTS.get(self.name, 1.0)

    def wording(self, k: int, rng) -> str:
        """A label's name, maybe in a frame, or one of its other wordings."""
        name = self.labels[k]
        others = self.wordings.get(name, [])
        if others and rng.rand() >= NAME_SHARE:
            return others[rng.randint(len(others))]
        return FRAMES[rng.randint(len(FRAMES))].format(name)


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
    """The tasks in some files; default: all that are trained on."""
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
    """Stretches of 2 to 6 sentences, more of them from the end, where opinions stand."""
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
    """Classes of a number: above `far`, below -`far`, and, if there is a third class, within `near`."""
    value = value.to_numpy()
    targets = np.stack([value > far, value < -far, np.abs(value) <= near][: len(classes)], axis=1)
    kept = targets.any(axis=1)
    return Task(name, list(texts[kept]), list(classes), targets[kept], wordings)
