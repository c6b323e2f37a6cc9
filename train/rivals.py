"""What a user would pick instead: linear classifiers and ridge regression on n-grams.

Words, or words and pairs of words, counted and weighted by TF-IDF; then a linear support vector
machine, or naive Bayes in its complement form (Rennie et al. 2003, "Tackling the poor assumptions
of naive Bayes text classifiers"), or ridge regression. All are scikit-learn's; n-grams and strength
of regularisation are those with the best score on the rows that choose a network's epoch.
"""

from functools import cached_property
from importlib.util import find_spec

import numpy as np

from minisum.errors import missing
from minisum.models.base import Unlearned
from train.run.task import Task

NGRAMS = (1, 2)
# name -> the strengths that are tried.
CLASSIFIERS = {"svm": (0.1, 0.3, 1.0), "naive_bayes": (0.03, 0.1, 0.3, 1.0)}
REGRESSORS = {"tfidf_ridge": (0.3, 1.0, 3.0, 10.0, 30.0)}
ALL = CLASSIFIERS | REGRESSORS


def available():
    return find_spec("sklearn") is not None


def require():
    if not available():
        names = ", ".join(ALL)
        raise missing(f"{names} need scikit-learn", "scikit-learn")


class Rival:
    """The best of its settings, fitted on the training rows.

    train: texts, targets and, optionally, numbers (N, k) that stand beside the n-grams. other: the
    same of the rows that the settings are chosen on.
    """

    def __init__(self, name, train, other):
        self.tried = []
        texts, targets, *numbers = train
        for ngrams in NGRAMS:
            read = Reader(texts, ngrams)
            x, held_out = read(texts, *numbers), read(other[0], *other[2:])
            for strength in ALL[name]:
                model = make(name, strength).fit(x, targets)
                score = float(model.score(held_out, other[1]))  # accuracy, or R²
                self.tried.append({"ngrams": ngrams, "strength": strength, "score": score})
                if score >= max(one["score"] for one in self.tried):
                    self.settings, self.read, self.model = self.tried[-1], read, model

    def predict(self, texts, numbers=None):
        return self.model.predict(self.read(texts, numbers))

    def parameters(self):
        """How many numbers were fitted, whatever scikit-learn calls them."""
        names = ("coef_", "intercept_", "feature_log_prob_")
        return sum(np.size(getattr(self.model, name, ())) for name in names)


class Reader:
    """Texts to rows of TF-IDF; the vocabulary is that of the texts it is made with."""

    def __init__(self, texts, ngrams):
        from sklearn.feature_extraction.text import TfidfVectorizer

        self.vectorizer = TfidfVectorizer(ngram_range=(1, ngrams), sublinear_tf=True).fit(texts)

    def __call__(self, texts, numbers=None):
        from scipy.sparse import csr_matrix, hstack

        x = self.vectorizer.transform(texts)
        return x if numbers is None else hstack([x, csr_matrix(numbers)]).tocsr()


def make(name, strength):
    from sklearn import linear_model, naive_bayes, svm

    if name == "svm":
        return svm.LinearSVC(C=strength, random_state=0)
    if name == "naive_bayes":
        return naive_bayes.ComplementNB(alpha=strength)
    return linear_model.Ridge(alpha=strength)


class WithRivals(Task):
    """A task whose comparisons include rivals: `rivals`, names; `models`, the other mixers.

    Subclasses define `rival_rows(split)`, which gives texts, targets and perhaps numbers.
    """

    @property
    def compared(self):
        return (*self.models, *(self.rivals if available() else ()))

    @property
    def is_rival(self):
        return self.config.mixer in self.rivals

    @cached_property
    def model(self):
        return Unlearned() if self.is_rival else super().model

    @cached_property
    def rival(self):
        """The rival of this name, its settings chosen where a network's epoch is chosen."""
        other = "test" if self.config.select == "test" else "val"
        return Rival(self.config.mixer, self.rival_rows("train"), self.rival_rows(other))

    def rival_answers(self, split):
        """(N,): its predictions for a split."""
        texts, _, *numbers = self.rival_rows(split)
        return self.rival.predict(texts, *numbers)

    def rival_settings(self):
        if "rival" not in self.__dict__:
            return {}
        return {"rival": self.rival.settings, "parameters": self.rival.parameters()}
