"""minisum.TextClassifier: the command's training in memory, in scikit-learn's manner."""

import json
import pickle

import numpy as np
import pytest

pytest.importorskip("safetensors")
pytest.importorskip("tokenizers")

from cli_runs import call
from cli_runs import corpus_in as write_corpus

import minisum
from minisum import checkpoint
from minisum.errors import UserError

SIZES = {"width": 8, "max_len": 12, "batch_size": 8, "lr": 0.02, "ema": 0.9, "patience": 0}
SIZES |= {"token_dropout": 0.1, "epochs": 10}


@pytest.fixture(scope="module")
def animals(tmp_path_factory):
    """(file, texts, labels)"""
    path = write_corpus(tmp_path_factory.mktemp("animals"))
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    return path, [row["text"] for row in rows], [row["label"] for row in rows]


@pytest.fixture(scope="module")
def fitted(animals):
    _, texts, labels = animals
    return minisum.TextClassifier(**SIZES).fit(texts, labels)


@pytest.mark.parametrize("more", [{}, {"mixer": "tssa", "layers": 2, "heads": 2}])
def test_it_fits_what_the_command_trains_bit_for_bit(animals, tmp_path, more):
    path, texts, labels = animals
    settings = SIZES | {"validation": 0.2, "seed": 3, "threads": 1} | more
    flags = [x for n, v in settings.items() for x in (f"--{n.replace('_', '-')}", v)]
    out = tmp_path / "run"
    assert call("--data", path, "--test-data", path, *flags, "--out", out) == 0
    fitted = minisum.TextClassifier(**settings).fit(texts, labels)
    fitted.save(tmp_path / "saved")
    trained, meta = checkpoint.load(out / checkpoint.BEST)
    mine, described = checkpoint.load(tmp_path / "saved" / checkpoint.BEST)
    assert trained.keys() == mine.keys()
    for name in trained:
        np.testing.assert_array_equal(trained[name], mine[name], err_msg=name)
    model, other = (m["model_spec"]["model"] for m in (described, meta))
    assert model.items() <= other.items()
    metrics = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    scores = [record["val_accuracy"] for record in metrics]
    assert [record["val_score"] for record in fitted.history_] == scores
    tokenizers = {(tmp_path / n / checkpoint.TOKENIZER).read_bytes() for n in ("run", "saved")}
    assert len(tokenizers) == 1


def test_defaults_are_the_commands(animals):
    from train.classifier import ClassifierConfig

    config = ClassifierConfig()
    for name, value in minisum.TextClassifier().get_params().items():
        assert getattr(config, name) == value, name


def test_it_is_saved_and_loaded_with_labels_of_their_type(animals, tmp_path):
    _, texts, labels = animals
    numbers = [{"cat": 3, "cow": 10, "dog": 7}[label] for label in labels]
    clf = minisum.TextClassifier(**SIZES, validation=0)
    assert clf.fit(np.array(texts, object), np.array(numbers)) is clf
    assert clf.classes_.tolist() == [3, 7, 10] and clf.score(texts, numbers) > 0.9
    clf.save(tmp_path / "run")
    for again in (minisum.TextClassifier.load(tmp_path / "run"), pickle.loads(pickle.dumps(clf))):
        assert again.get_params() == clf.get_params()
        np.testing.assert_array_equal(again.predict_proba(texts), clf.predict_proba(texts))
        assert again.predict(texts).dtype == clf.predict(texts).dtype
    run = minisum.load(tmp_path / "run")
    assert run.classes == [3, 7, 10] and run.predict(texts[:5]) == clf.predict(texts[:5]).tolist()
    clf.save(tmp_path / "run")
    assert clf.explain("meow").label == 3


def test_a_run_of_the_command_is_loaded(straight):
    clf = minisum.TextClassifier.load(straight)
    assert clf.width == 8 and clf.predict(["meow meow", "woof"]).tolist() == ["cat", "dog"]
    with pytest.raises(UserError, match="holds a training run"):
        clf.save(straight)


def test_few_texts_are_enough():
    texts = ["good film", "fine film", "bad film", "poor film"]
    clf = minisum.TextClassifier(width=16, epochs=60, lr=0.01).fit(texts, [1, 1, 0, 0])
    assert clf.predict(["good fine", "bad poor"]).tolist() == [1, 0]
    assert "val_score" not in clf.history_[0]


def test_parameters_are_told_as_scikit_learn_wants_them():
    clf = minisum.TextClassifier("attention", width=32)
    assert repr(clf) == "TextClassifier(mixer='attention', width=32)"
    assert clf.set_params(width=8, lr=0.1) is clf and clf.get_params()["width"] == 8
    with pytest.raises(UserError, match="parameter 'depth': choose one of mixer"):
        clf.set_params(depth=3)


@pytest.mark.parametrize(
    ("texts", "labels", "words"),
    [
        (["a", "b"], ["x"], "as many labels"),
        (["a", "b"], ["x", "x"], "two classes"),
        ("ab", ["x", "y"], "a list of texts"),
        ([["a"], ["b"]], ["x", "y"], "text 0 is not a text but of type list"),
        (["a", None], ["x", "y"], "text 1 is not a text but of type NoneType"),
    ],
)
def test_what_cannot_be_fitted(texts, labels, words):
    with pytest.raises(UserError, match=words):
        minisum.TextClassifier(width=4, epochs=1).fit(texts, labels)


def test_before_fitting_and_after_divergence(animals):
    _, texts, labels = animals
    with pytest.raises(UserError, match="has not been fitted"):
        minisum.TextClassifier().predict(["a"])
    with np.errstate(all="ignore"), pytest.raises(UserError, match="in epoch 1: a lower lr"):
        minisum.TextClassifier(**SIZES | {"lr": 1e30}).fit(texts, labels)


def test_scikit_learn_takes_it_for_one_of_its_own(animals, fitted):
    base = pytest.importorskip("sklearn.base")
    from sklearn.exceptions import NotFittedError
    from sklearn.model_selection import GridSearchCV, cross_val_score
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import FunctionTransformer
    from sklearn.utils.validation import check_is_fitted

    _, texts, labels = animals
    clf = minisum.TextClassifier(**SIZES)
    copy = base.clone(clf)
    assert copy is not clf and copy.get_params() == clf.get_params() and base.is_classifier(clf)
    assert base.clone(fitted).get_params() == fitted.get_params()
    assert cross_val_score(clf, texts, labels, cv=3).mean() > 0.8
    lower = FunctionTransformer(lambda found: [text.lower() for text in found])
    pipeline = make_pipeline(lower, clf).fit(texts, labels)
    assert pipeline.score([text.upper() for text in texts], labels) > 0.9
    search = GridSearchCV(clf, {"mixer": ["summation", "mean_embedding"]}, cv=2)
    assert search.fit(texts, labels).best_score_ > 0.7
    check_is_fitted(fitted)
    with pytest.raises(NotFittedError):
        check_is_fitted(minisum.TextClassifier())
    with pytest.raises(NotFittedError, match="has not been fitted"):
        minisum.TextClassifier().predict(["a"])
    tags = clf.__sklearn_tags__()
    assert tags.input_tags.string and not tags.input_tags.two_d_array  # n_features has no meaning
    assert not hasattr(fitted, "n_features_in_")


# Of scikit-learn's own checks those that need no table of numbers, as all others do.
CHECKS = (
    "check_estimator_cloneable", "check_estimator_repr", "check_parameters_default_constructible",
    "check_get_params_invariance", "check_set_params", "check_no_attributes_set_in_init",
    "check_do_not_raise_errors_in_init_or_set_params", "check_valid_tag_types",
    "check_estimator_tags_renamed", "check_mixin_order", "check_estimators_unfitted",
    "check_n_features_in_after_fitting",
)  # fmt: skip


@pytest.mark.parametrize("name", CHECKS)
def test_scikit_learns_checks(name):
    checks = pytest.importorskip("sklearn.utils.estimator_checks")
    if not hasattr(checks, name):
        pytest.skip("not in this version of scikit-learn")
    getattr(checks, name)("TextClassifier", minisum.TextClassifier(**SIZES | {"epochs": 1}))


def test_what_its_other_checks_ask_holds_for_texts(animals, fitted):
    """As check_fit_idempotent, _methods_subset_invariance, _methods_sample_order_invariance,
    _dict_unchanged, _estimators_overwrite_params and _estimators_data_not_an_array do of numbers.
    """
    _, texts, labels = animals
    clf = minisum.TextClassifier(**SIZES)
    before = clf.get_params()
    assert clf.fit(np.array(texts, object), np.array(labels)) is clf and clf.get_params() == before
    whole = fitted.predict_proba(texts)
    np.testing.assert_array_equal(clf.predict_proba(texts), whole)
    np.testing.assert_array_equal(clf.fit(texts, labels).predict_proba(texts), whole)
    held = dict(vars(clf))
    one_by_one = np.concatenate([clf.predict_proba([text]) for text in texts[:20]])
    np.testing.assert_allclose(one_by_one, whole[:20], rtol=1e-5, atol=1e-7)
    order = np.random.default_rng(0).permutation(len(texts))
    shuffled = clf.predict_proba([texts[i] for i in order])
    np.testing.assert_allclose(shuffled, whole[order], rtol=1e-5, atol=1e-7)
    assert clf.predict(texts).tolist() == clf.classes_[whole.argmax(axis=1)].tolist()
    np.testing.assert_allclose(whole.sum(axis=1), 1, rtol=1e-6)
    assert vars(clf) == held
