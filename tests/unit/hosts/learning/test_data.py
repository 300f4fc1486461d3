"""Learning data: who holds what, what a node says about it, and what a file must be to be learned from."""

from __future__ import annotations

import json
import random
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from benchmarks.text import baseline, load_texts, pooled, write_corpus
from hosts.learning.data import tables, vignettes
from hosts.learning.data.encode import MAX_CATEGORIES, MAX_LABELS, MIN_PER_LABEL, MIN_ROWS, encode, is_prose
from hosts.learning.data.partitions import deal_rows, mixes, whole_counts
from hosts.learning.data.privacy import private_shares
from hosts.learning.data.read import HEART_COLUMNS, HEART_DROPPED, HEART_FILES, Rows, read_rows
from hosts.learning.data.words import Vocabulary
from hosts.learning.errors import LearningError
from hosts.learning.models import word_weights
from hosts.learning.spec import NodeData, Samples, TaskSpec, TrainSettings, concat_samples
from hosts.learning.task import TableTask, Task, load_task, partition

HEART = Path(__file__).parents[4] / ".." / "shared" / "data" / "heart_uci"
KINDS = ("dirichlet", "iid", "one_class", "shards")
NODES = [f"h{n}" for n in range(8)]
PASSES = TrainSettings(epochs=20, learning_rate=0.05)


def small(**kwargs: Any) -> Task:
    return load_task(TaskSpec(**({"train_per_node": 40, "test_per_node": 12} | kwargs)))


def write(path: Path, text: str | bytes) -> Path:
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def lines(rows: int = 60, header: str = "id,label", classes: str = "abc") -> str:
    return header + "\n" + "".join(f"{i},{classes[i % len(classes)]}\n" for i in range(rows))


def table(path: Path, text: str | None = None, **kwargs: Any) -> TableTask:
    file = write(path / "data.csv", lines() if text is None else text)
    task = load_task(TaskSpec(**({"name": "table", "data": str(file)} | kwargs)))
    assert isinstance(task, TableTask)
    return task


def pieces(part: NodeData) -> list[Samples]:
    return [part.train, *part.test]


def rows_of(samples: Samples) -> list[tuple[float, ...]]:
    """Rows as comparable values, the label last."""
    both = torch.cat([samples.inputs.double(), samples.labels.double()[:, None]], dim=1)
    return [tuple(row) for row in both.tolist()]


# --- vignettes -------------------------------------------------------------------------------------------------------


def test_the_knowledge_base_is_a_table_of_chances() -> None:
    assert vignettes.PROFILES.shape == (len(vignettes.LABELS), vignettes.TOKENS) == (48, 160)
    assert np.allclose(vignettes.PROFILES.sum(axis=1), 1)
    assert len(set(vignettes.LABELS)) == 48
    assert len(set(vignettes.FINDING_NAMES)) == vignettes.TOKENS


def test_generated_patients_have_the_counts_asked_for() -> None:
    counts = np.arange(48) % 4
    drawn = vignettes.generate(counts, noise=0.3, length=5, rng=np.random.default_rng(1))
    assert drawn.inputs.shape == (counts.sum(), 5)
    assert drawn.inputs.dtype == torch.int16
    assert torch.bincount(drawn.labels.long(), minlength=48).tolist() == counts.tolist()


@pytest.mark.parametrize("label", [0, 47])
def test_without_noise_a_patient_has_findings_of_the_disease_only(label: int) -> None:
    counts = np.zeros(48, dtype=int)
    counts[label] = 50
    typical = set(np.flatnonzero(vignettes.PROFILES[label]).tolist())
    clean, noisy = (
        vignettes.generate(counts, noise=noise, length=12, rng=np.random.default_rng(2)) for noise in (0.0, 0.5)
    )
    assert set(clean.inputs.flatten().tolist()) <= typical
    odd = sum(token not in typical for token in noisy.inputs.flatten().tolist()) / noisy.inputs.numel()
    assert 0.35 < odd < 0.55  # half are drawn from all 160, of which eleven are typical anyway


@pytest.mark.parametrize("kind", KINDS)
def test_vignettes_every_patient_is_on_one_node_and_in_one_sample(kind: str) -> None:
    parts = partition(small(partition=kind), NODES, seed=3)
    assert list(parts) == NODES
    assert [len(s) for part in parts.values() for s in pieces(part)] == [40, 12, 12] * len(NODES)
    seen = [row for part in parts.values() for s in pieces(part) for row in rows_of(s)]
    assert len(set(seen)) == len(seen)


@pytest.mark.parametrize("kind", KINDS)
def test_vignettes_repeat_under_a_seed_and_differ_without(kind: str) -> None:
    task = small(partition=kind)
    one, same, other = (
        [rows_of(s) for part in partition(task, NODES[:3], seed).values() for s in pieces(part)] for seed in (5, 5, 6)
    )
    assert one == same
    assert one != other


def test_vignettes_one_class_and_shards_hold_so_many_departments() -> None:
    for kind, most in (("one_class", 1), ("shards", 3)):
        task = small(partition=kind, shards_per_node=3)
        for part in partition(task, NODES, seed=1).values():
            for sample in pieces(part):
                held = sum(count > 0 for count in task.group_counts(sample).values())
                assert 1 <= held <= most, kind


@pytest.mark.parametrize(
    "wrong", [{"noise": 1.0}, {"noise": -0.1}, {"findings_per_vignette": 0}, {"findings_per_vignette": 65},
              {"train_per_node": 0}, {"test_per_node": 0}]
)  # fmt: skip
def test_vignettes_refuse_a_description_that_cannot_be(wrong: dict[str, Any]) -> None:
    with pytest.raises(LearningError, match=r"^vignettes: [^\n]+\Z"):
        small(**wrong)


# --- who holds which groups ------------------------------------------------------------------------------------------


@given(
    kind=st.sampled_from(KINDS),
    alpha=st.floats(0.05, 50),
    nodes=st.integers(1, 14),
    groups=st.integers(2, 10),
    seed=st.integers(0, 99),
)
@settings(max_examples=40)
def test_shares_are_shares(kind: Any, alpha: float, nodes: int, groups: int, seed: int) -> None:
    found = mixes(TaskSpec(partition=kind, alpha=alpha), nodes, groups, np.random.default_rng(seed))
    assert found.shape == (nodes, groups)
    assert (found >= 0).all()
    assert np.allclose(found.sum(axis=1), 1)


def test_dirichlet_is_skewed_by_alpha_and_fair_to_the_groups() -> None:
    most = {}
    for alpha in (0.1, 1.0, 100.0):
        shares = mixes(TaskSpec(alpha=alpha), 12, 8, np.random.default_rng(0))
        most[alpha] = float(shares.max(axis=1).mean())
        assert shares.mean(axis=0) == pytest.approx(1 / 8, abs=0.03)  # every group as common in the country
    assert most[0.1] > most[1.0] + 0.1 > most[100.0] + 0.2
    assert most[100.0] < 0.2


def test_iid_is_equal_and_one_class_covers_all_groups() -> None:
    rng = np.random.default_rng(0)
    assert (mixes(TaskSpec(partition="iid"), 3, 4, rng) == 0.25).all()
    one = mixes(TaskSpec(partition="one_class"), 8, 8, rng)
    assert (one.sum(axis=0) == 1).all()
    assert (one.max(axis=1) == 1).all()


def test_shards_are_of_different_groups() -> None:
    for seed in range(20):
        shares = mixes(TaskSpec(partition="shards", shards_per_node=2), 12, 8, np.random.default_rng(seed))
        assert ((shares > 0).sum(axis=1) == 2).all()


@pytest.mark.parametrize(
    ("wrong", "told"),
    [({"alpha": 0}, "alpha"), ({"partition": "shards", "shards_per_node": 0}, "shards_per_node 0"),
     ({"partition": "natural"}, "names its sites")],
)  # fmt: skip
def test_mixes_refuse(wrong: dict[str, Any], told: str) -> None:
    with pytest.raises(LearningError, match=told):
        partition(small(**wrong), NODES, seed=0)


@given(st.lists(st.floats(0.001, 1), min_size=1, max_size=12), st.integers(0, 500))
@settings(max_examples=60)
def test_whole_counts_add_up_and_are_near(shares: list[float], total: int) -> None:
    counts = whole_counts(np.asarray(shares), total)
    assert counts.sum() == total
    assert (np.abs(counts - np.asarray(shares) / sum(shares) * total) < 1 + 1e-9).all()


@given(
    kind=st.sampled_from(KINDS),
    labels=st.lists(st.integers(0, 3), min_size=4, max_size=90),
    nodes=st.integers(1, 9),
    seed=st.integers(0, 9),
)
@settings(max_examples=60)
def test_every_row_of_a_table_goes_to_exactly_one_node(kind: Any, labels: list[int], nodes: int, seed: int) -> None:
    dealt = deal_rows(
        TaskSpec(partition=kind), np.asarray(labels), np.zeros(len(labels), int), nodes, np.random.default_rng(seed)
    )
    assert len(dealt) == nodes
    assert sorted(int(row) for rows in dealt for row in rows) == list(range(len(labels)))


def test_natural_gives_each_node_its_site() -> None:
    sites = np.asarray([0, 2, 1, 1, 0])
    spec, rng = TaskSpec(partition="natural"), np.random.default_rng(0)
    dealt = deal_rows(spec, np.zeros(5, int), sites, 3, rng)
    assert [rows.tolist() for rows in dealt] == [[0, 4], [2, 3], [1]]
    with pytest.raises(LearningError, match="3 sites but the scenario 2 data nodes"):
        deal_rows(spec, np.zeros(5, int), sites, 2, rng)


@pytest.mark.parametrize("kind", KINDS)
def test_a_table_is_shared_out_whole_and_its_test_samples_are_disjoint(tmp_path: Path, kind: str) -> None:
    task = table(tmp_path, lines(120), partition=kind)  # every row has its own id
    parts = partition(task, NODES[:3], seed=4)
    placed = [row for part in parts.values() for sample in pieces(part) for row in rows_of(sample)]
    assert len(placed) == len(set(placed)) == 120
    for part in parts.values():
        train, first, second = (len(s) for s in pieces(part))
        assert first + second == pytest.approx((train + first + second) / 3, abs=2)
        assert abs(first - second) <= 1
    again = partition(task, NODES[:3], seed=4)
    assert [rows_of(s) for p in again.values() for s in pieces(p)] == [
        rows_of(s) for p in parts.values() for s in pieces(p)
    ]


def test_testing_is_stratified(tmp_path: Path) -> None:
    task = table(tmp_path, lines(120, classes="aaaaab"), partition="iid")
    part = partition(task, ["only"], seed=0)["only"]
    assert [task.group_counts(s) for s in pieces(part)] == [{"a": 67, "b": 13}, {"a": 17, "b": 3}, {"a": 16, "b": 4}]


@pytest.mark.parametrize("names", [[], ["a", "a"]])
def test_partition_wants_each_node_once(names: list[str]) -> None:
    with pytest.raises(LearningError, match="each name once"):
        partition(small(), names, seed=0)


@pytest.mark.parametrize("wrong", [{"test_share": 0.01}, {"test_share": 0.9}, {"hidden": -1}])
def test_a_table_refuses_a_description_that_cannot_be(tmp_path: Path, wrong: dict[str, Any]) -> None:
    with pytest.raises(LearningError, match=next(iter(wrong))):
        table(tmp_path, **wrong)


# --- what a node publishes -------------------------------------------------------------------------------------------


@given(st.lists(st.integers(0, 2000), min_size=1, max_size=12), st.floats(0.01, 100), st.integers(0, 999))
@settings(max_examples=80)
def test_a_private_histogram_is_a_histogram(counts: list[int], epsilon: float, seed: int) -> None:
    shares = private_shares(np.asarray(counts, float), epsilon, np.random.default_rng(seed))
    assert shares.sum() == pytest.approx(1)
    assert (shares >= 0).all()


def test_noise_shrinks_as_epsilon_grows() -> None:
    counts = np.asarray([60.0, 30.0, 10.0])

    def error(epsilon: float) -> float:
        rng = np.random.default_rng(0)
        drawn = [private_shares(counts, epsilon, rng) for _ in range(200)]
        return float(np.mean([np.abs(shares - counts / 100).mean() for shares in drawn]))

    errors = [error(epsilon) for epsilon in (0.1, 1.0, 10.0, 1e6)]
    assert all(more > 4 * less for more, less in pairwise(errors))
    assert errors[-1] < 1e-6


@pytest.mark.parametrize("epsilon", [0.0, -1.0])
def test_no_privacy_budget_no_histogram(epsilon: float) -> None:
    with pytest.raises(LearningError, match="above 0"):
        private_shares(np.ones(2), epsilon, np.random.default_rng(0))


def test_describe_is_near_the_truth_but_not_it() -> None:
    task = small(train_per_node=400, partition="shards")
    train = partition(task, ["h"], seed=0)["h"].train
    told, truth = task.describe(train, seed=1), task.group_counts(train)
    assert list(told) == task.groups
    assert sum(told.values()) == pytest.approx(1)
    assert all(abs(told[g] - truth[g] / 400) < 0.05 for g in task.groups)
    assert any(told[g] != truth[g] / 400 for g in task.groups)
    assert told == task.describe(train, seed=1) != task.describe(train, seed=2)


# --- the heart files -------------------------------------------------------------------------------------------------

needs_heart = pytest.mark.skipif(not HEART.is_dir(), reason="the UCI heart files are not at ../shared/data/heart_uci")


@needs_heart
def test_heart_patients_per_hospital() -> None:
    task = load_task(TaskSpec(name="table", data=str(HEART), partition="natural"))
    parts = partition(task, ["cleveland", "hungary", "switzerland", "va"], seed=0)
    assert [sum(map(len, pieces(part))) for part in parts.values()] == [303, 261, 46, 130]
    sick = [sum(task.group_counts(s)["disease"] for s in pieces(part)) for part in parts.values()]
    assert [round(100 * n / total, 1) for n, total in zip(sick, (303, 261, 46, 130), strict=True)] == [
        45.9, 37.5, 97.8, 77.7,
    ]  # fmt: skip
    assert task.labels == ["healthy", "disease"]


def heart_files(path: Path, spoiled: str = "") -> str:
    good = "".join(f"{40 + i},1,{i % 4 + 1},130,200,0,{i % 3},140,0,1.5,?,?,?,{i % 5}\n" for i in range(30))
    for name in HEART_FILES:
        write(path / name, good)
    write(path / HEART_FILES[1], good + spoiled)
    return str(path)


def test_heart_rows_with_a_gap_are_dropped_and_any_disease_is_disease(tmp_path: Path) -> None:
    rows = read_rows(heart_files(tmp_path, "50,1,1,?,200,0,0,140,0,1.0,1,1,1,4\n\n51,1,1,1,200,0,0,140,0,1,?,?,?,3\n"))
    assert len(rows.cells) == 4 * 30 + 1
    assert rows.columns == [name for name in HEART_COLUMNS if name not in HEART_DROPPED]
    assert [rows.sites.count(site) for site in range(4)] == [30, 31, 30, 30]
    assert sum(row[-1] == "healthy" for row in rows.cells) == 4 * 6


def test_heart_features_do_not_depend_on_the_other_patients(tmp_path: Path) -> None:
    file = heart_files(tmp_path)
    alone = encode(read_rows(file), source=file)
    write(tmp_path / HEART_FILES[2], "90,0,4,250,600,1,2,60,1,6.0,?,?,?,4\n" * 9)
    other = encode(read_rows(file), source=file)
    assert alone.feature_names == other.feature_names
    assert (alone.features[:60] == other.features[:60]).all()
    assert other.features[60, other.feature_names.index("age")] == pytest.approx((90 - 55) / 10)


@pytest.mark.parametrize(
    "spoiled", ["50,1,1,130,20", "50,1,1,130,200,0,0,140,0,1.0,1,1,1,1,1\n"], ids=["cut", "too long"]
)
def test_a_heart_file_with_an_odd_line_is_named(tmp_path: Path, spoiled: str) -> None:
    with pytest.raises(LearningError, match=r"hungarian.data line 31: \d+ values instead of 14[^\n]*\Z"):
        read_rows(heart_files(tmp_path, spoiled))


def test_a_directory_without_the_heart_files_says_which_is_missing(tmp_path: Path) -> None:
    heart_files(tmp_path)
    (tmp_path / HEART_FILES[3]).unlink()
    with pytest.raises(LearningError, match=r"no processed\.va\.data"):
        read_rows(str(tmp_path))


@pytest.mark.parametrize("where", [0, 2, 13], ids=["age", "cp", "num"])
def test_a_heart_file_with_a_word_for_a_number_is_refused(tmp_path: Path, where: int) -> None:
    cells = ["50", "1", "1", "130", "200", "0", "0", "140", "0", "1.0", *"1111"]
    cells[where] = "abc"
    with pytest.raises(LearningError):
        load_task(TaskSpec(name="table", data=heart_files(tmp_path, ",".join(cells) + "\n"), partition="natural"))


def test_a_table_with_the_heart_columns_may_have_gaps(tmp_path: Path) -> None:
    names = [name for name in HEART_COLUMNS if name not in HEART_DROPPED]
    text = ",".join(names) + "\n" + "".join(f"50,1,?,130,200,0,0,140,0,1.0,{i % 2}\n" for i in range(60))
    table(tmp_path, text, label_column="num")


# --- tables and texts ------------------------------------------------------------------------------------------------


def cells(**columns: list[str]) -> Rows:
    names = list(columns)
    return Rows(names, [list(row) for row in zip(*columns.values(), strict=True)], [0] * len(columns[names[0]]), "y")


def test_numbers_are_scaled_and_words_become_columns() -> None:
    y = ["p", "q"] * 30
    found = encode(cells(size=[str(i) for i in range(60)], colour=["red", "blue", "?"] * 20, y=y), source="s")
    assert found.feature_names[0] == "size"
    assert set(found.feature_names[1:]) == {"colour=red", "colour=blue"}
    assert found.scaling["size"] == pytest.approx((29.5, 29.5 / 1.35))
    size, words = found.features[:, 0], found.features[:, 1:]
    assert np.median(size) == pytest.approx(0, abs=1e-6)
    assert (np.diff(size) > 0).all()
    assert words.sum(axis=1).tolist() == [1, 1, 0] * 20  # missing: none of the categories
    assert found.labels.tolist() == [0, 1] * 30
    assert found.label_names == ["p", "q"]


@pytest.mark.parametrize("gap", ["", "?", "NA", "NaN", "null", "None"])
def test_a_missing_number_is_the_middle_and_a_missing_label_drops_the_row_and_says_so(gap: str) -> None:
    sizes = [gap, *(str(i) for i in range(60))]
    lost = gap if gap != "None" else ""  # a class may be called None
    found = encode(cells(size=sizes, y=["a", *["a", "b"] * 29, lost, lost]), source="s")
    assert "2 of 61 rows have no label and are left aside" in found.notes
    assert found.features.shape == (59, 1)
    assert found.features[0, 0] == 0
    assert found.label_names == ["a", "b"]


def test_an_outlier_is_cut_and_infinity_is_no_number() -> None:
    sizes = [*(str(i) for i in range(58)), "1e300", "inf"]
    found = encode(cells(size=sizes, y=["a", "b"] * 30), source="s")
    assert found.features[58:, 0].tolist() == [6, 0]


def test_only_common_categories_get_a_column() -> None:
    names = ["often"] * 20 + [f"n{i}" for i in range(40)]
    found = encode(cells(c=names, y=["a", "b"] * 30), source="s")
    assert found.features.shape[1] == MAX_CATEGORIES
    assert found.feature_names[0] == "c=often"


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_separators_quotes_and_a_byte_order_mark(tmp_path: Path, separator: str) -> None:
    text = f'\ufeffa{separator}label\r\n"x{separator} ""y"""{separator} b \r\n'
    rows = read_rows(str(write(tmp_path / "x.csv", text)))
    assert rows.columns == ["a", "label"]
    assert rows.cells == [[f'x{separator} "y"', "b"]]


def test_json_lines(tmp_path: Path) -> None:
    records = [{"a": 1.5, "class": True}, {"class": None, "b": ["nested"]}, {"a": " w ", "b": "x"}]
    file = write(tmp_path / "x.jsonl", "\n\n".join(json.dumps(r) for r in records))
    rows = read_rows(str(file))
    assert rows.columns == ["a", "class", "b"]
    assert rows.label == "class"
    assert rows.cells == [["1.5", "1", ""], ["", "", "nested"], ["w", "", "x"]]


@pytest.mark.parametrize(
    ("header", "wanted", "found"),
    [("a,label", "", "label"), ("Target,a", "", "Target"), ("y,label", "", "y"), ("a,label", "a", "a"),
     ("diagnosis,b", "b", "b")],
)  # fmt: skip
def test_which_column_is_the_label(tmp_path: Path, header: str, wanted: str, found: str) -> None:
    assert read_rows(str(write(tmp_path / "x.csv", header + "\n1,2\n")), wanted).label == found


def test_texts_are_numbers_of_their_words(tmp_path: Path) -> None:
    text = "note,code,label\n" + "".join(
        f'"pain in {"chest" if i % 2 else "knee"}!",x,{"ab"[i % 2]}\n' for i in range(50)
    )
    task = table(tmp_path, text, name="text")
    numbers = task.table.features
    assert numbers.shape == (50, 3)
    assert task.table.feature_names == ["note#0", "note#1", "note#2"]  # the longest column, where none is named
    assert (numbers[0] == numbers[2]).all()
    assert (numbers[0] != numbers[1]).sum() == 1
    assert table(tmp_path, text, name="text", text_column="code").table.feature_names == ["code#0"]


def test_a_text_task_is_asked_with_a_row_of_its_own_or_with_somebodys_words(tmp_path: Path) -> None:
    text = "note,label\n" + "".join(
        f'"pain in the {"chest" if i % 2 else "knee"} no {i}",{["knee", "chest"][i % 2]}\n' for i in range(80)
    )
    task = table(tmp_path, text, name="text")
    model = task.new_model(0)
    task.train(model, concat_samples([part.train for part in partition(task, ["h1", "h2"], 0).values()]), PASSES)
    sample, expected = task.sample_of("chest", random.Random(0))
    assert all(isinstance(number, int) and number for number in sample)  # no filling travels
    assert task.ask(model, sample)[0] == expected == "chest"
    assert task.ask(model, task.sample_from("My KNEE hurts!"))[0] == "knee"
    with pytest.raises(LearningError, match="no word of hello world occurs in the texts"):
        task.sample_from("hello world")
    with pytest.raises(LearningError, match="takes 6"):
        task.ask(model, [1] * 7)
    with pytest.raises(LearningError, match="numbers of words"):
        task.ask(model, [30_000])


def test_words_weigh_as_scikit_learn_weighs_them() -> None:
    from sklearn.feature_extraction.text import TfidfVectorizer

    texts = ["pain in the chest, pain", "the knee", "fever and chest pain again and again", "a b"]
    vectors = TfidfVectorizer(sublinear_tf=True, token_pattern=r"[^\W_]{2,}").fit(texts)
    known = Vocabulary.of(texts)
    ours = word_weights(torch.from_numpy(known.encode_all(texts)), torch.from_numpy(known.idf), 1.0)
    places = [known.numbers[word] for word in vectors.get_feature_names_out()]
    assert ours[:, places].numpy() == pytest.approx(vectors.transform(texts).toarray(), abs=1e-6)
    assert ours.norm(dim=1).tolist() == pytest.approx([1, 1, 1, 0])  # the last has no word


def test_a_text_model_is_as_good_as_tf_idf_and_logistic_regression_on_the_same_rows(tmp_path: Path) -> None:
    """Docstrings of four packages; which package is asked."""
    counts = {"flask": 120, "networkx": 150, "mininet": 150, "scapy": 150}
    file = write_corpus(tmp_path / "x.csv", counts, words=40, seed=1)
    task = load_texts(file)
    ours, theirs = pooled(task), baseline(task)
    assert theirs > 0.6
    assert ours > theirs - 0.02


def notes_on(path: Path, content: str | bytes, name: str = "x.csv") -> tuple[Rows, str]:
    rows = read_rows(str(write(path / name, content)))
    return rows, "; ".join(rows.notes)


def test_a_table_as_a_german_excel_writes_it(tmp_path: Path) -> None:
    text = "Größe;label;\n" + "1,5;ja;\n2;nein;\n-0,25;ja;\n"
    rows, notes = notes_on(tmp_path, text.encode("latin-1"))
    assert rows.columns == ["Größe", "label"]
    assert rows.cells == [["1.5", "ja"], ["2", "nein"], ["-0.25", "ja"]]
    assert "Windows-1252" in notes
    assert "column Größe: commas read as decimal points" in notes
    assert "column 3: empty, left aside" in notes


def test_a_list_of_messages_as_they_are_passed_around(tmp_path: Path) -> None:
    """``spam.csv``: Latin-1, columns ``v1,v2`` and three without name or content."""
    text = "v1,v2,,,\n" + 'ham,"Oh £5, ok",,,\nspam,WIN,,,\n'
    file = write(tmp_path / "spam.csv", text.encode("latin-1"))
    with pytest.raises(LearningError, match=r"no label column; it has v1, v2: .*--label"):
        read_rows(str(file))
    rows = read_rows(str(file), "v1")
    assert rows.columns == ["v1", "v2"]
    assert rows.cells[0] == ["ham", "Oh £5, ok"]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_encodings_that_say_themselves_and_pipes(tmp_path: Path, encoding: str) -> None:
    rows, notes = notes_on(tmp_path, "a|label\n1,2|é\n0,5|b\n".encode(encoding))
    assert rows.cells == [["1.2", "é"], ["0.5", "b"]]
    assert "1252" not in notes


def test_packed_files_and_excel_sheets(tmp_path: Path) -> None:
    import gzip

    import pandas

    assert read_rows(str(write(tmp_path / "x.csv.gz", gzip.compress(b"a,label\n1,x\n")))).cells == [["1", "x"]]
    with pytest.raises(LearningError, match="not a whole gzip file"):
        read_rows(str(write(tmp_path / "y.csv.gz", gzip.compress(b"a,label\n1,x\n" * 99)[:40])))
    pandas.DataFrame({"a": [1.5, 2], "label": ["x", None]}).to_excel(tmp_path / "x.xlsx", index=False)
    assert read_rows(str(tmp_path / "x.xlsx")).cells == [["1.5", "x"], ["2", ""]]
    with pytest.raises(LearningError, match="no Excel file"):
        read_rows(str(write(tmp_path / "z.xlsx", "a,label\n1,x\n")))


def test_json_arrays_and_labels_in_lists_of_one(tmp_path: Path) -> None:
    records = [{"note": "a", "label": ["x"]}, {"note": "b", "label": ["y"], "more": [1, 2]}]
    rows, notes = notes_on(tmp_path, json.dumps(records, indent=1), "x.json")
    assert rows.cells == [["a", "x", ""], ["b", "y", ""]] or rows.columns == ["note", "label"]
    assert "column more: lists and objects in it are left aside" in notes


def test_a_long_cell_an_index_and_numbers_as_classes(tmp_path: Path) -> None:
    long = "word " * 40_000
    rows, notes = notes_on(tmp_path, f',note,label\n0,"{long}",0\n1,b,0.0\n')
    assert rows.columns == ["note", "label"]
    assert "numbers the rows" in notes
    assert len(rows.cells[0][0]) == len(long.strip())
    found = encode(cells(a=["1", "2"] * 30, y=["0", "0.0", "1", "1.0"] * 15), source="s")
    assert found.label_names == ["0", "1"]


def test_columns_are_chosen_and_said(tmp_path: Path) -> None:
    text = "name,age,label\n" + "".join(f'"Ann Mary Lee {i}",{i % 50},{"ab"[i % 2]}\n' for i in range(60))
    file = str(write(tmp_path / "x.csv", text))
    assert not is_prose(read_rows(file))  # names beside numbers: a table
    assert is_prose(read_rows(file, columns=["name"]))
    task = load_task(TaskSpec(name="table", data=file, columns=["age"]))
    assert task.notes == ("1 columns are learnt from: age",)
    with pytest.raises(LearningError, match="no column 'agee'; it has name, age, label"):
        read_rows(file, columns=["agee"])


# --- bad input -------------------------------------------------------------------------------------------------------

HALF = "ab" * 20
MANY = "".join(map(chr, range(200, 300)))
BAD = {
    "empty": ("x.csv", "", "empty file"),
    "blank": ("x.csv", " \n\n", "empty file"),
    "no label column": ("x.csv", lines(header="id,kind"), "no label column; it has id, kind"),
    "one class only": ("x.csv", lines(classes="a"), "one class only"),
    "binary": ("x.csv", b"\x89PNG\r\n\x1a\n\x00\xff\xfe", "byte 0 is no text"),
    "cut quote": ("x.csv", lines() + '7,"open', "line 62: a quote is not closed"),
    "cut row": ("x.csv", lines() + "7", "row 62: 1 cells where the header has 2"),
    "ragged": ("x.csv", lines() + "7,a,b\n", "row 62: 3 cells where the header has 2"),
    "too few rows": ("x.csv", lines(MIN_ROWS - 1), f"{MIN_ROWS - 1} labelled rows"),
    "header only": ("x.csv", "id,label\n", "0 labelled rows"),
    "rare class": ("x.csv", lines() + "7,rare\n" * (MIN_PER_LABEL - 1), "class 'rare' has 3 rows"),
    "too many classes": ("x.csv", lines(MAX_LABELS + 1, classes=MANY), "different values"),
    "label only": ("x.csv", "label\n" + "\n".join(HALF), "nothing to learn from"),
    "column twice": ("x.csv", lines(header="label,label"), "occurs twice"),
    "json cut": ("x.jsonl", '{"a": 1, "label": "x"}\n{"a": ', "line 2: not one JSON object per line"),
    "json list": ("x.jsonl", "[1, 2]\n", "entry 1: int instead of an object"),
    "json deep": ("x.jsonl", "[" * 100_000, "neither one JSON array of objects nor"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_files_are_refused_in_one_line_that_names_the_file(tmp_path: Path, name: str) -> None:
    file, content, told = BAD[name]
    path = write(tmp_path / file, content)
    with pytest.raises(LearningError, match=told) as caught:
        load_task(TaskSpec(name="table", data=str(path)))
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("path", ["", "no/such/file.csv", "nul\0.csv", "two\nlines.csv"])
def test_a_missing_file(path: str) -> None:
    with pytest.raises(LearningError, match=r"^[^\n]*no such file[^\n]*\Z"):
        read_rows(path)


def test_columns_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(LearningError, match="no column 'sort'; it has id, label"):
        table(tmp_path, label_column="sort")
    with pytest.raises(LearningError, match="no text column 'sort'; it has id"):
        table(tmp_path, name="text", text_column="sort")


def test_a_file_too_large_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "MAX_FILE_BYTES", 100)
    with pytest.raises(LearningError, match="over 0 MiB"):
        read_rows(str(write(tmp_path / "x.csv", lines())))


@pytest.mark.parametrize(
    ("file", "text"), [("x.csv", '"a\nb",c\n1,2\n'), ("x.jsonl", '{"a\\nb": 1}\n')], ids=["csv", "jsonl"]
)
def test_a_line_end_in_a_column_name_stays_out_of_the_message(tmp_path: Path, file: str, text: str) -> None:
    with pytest.raises(LearningError, match=r"^[^\n]+\Z"):
        read_rows(str(write(tmp_path / file, text)))


def test_a_line_end_in_a_name_is_escaped_wherever_names_are_listed(tmp_path: Path) -> None:
    text = '"a\nb",label\n' + "".join(f'{i},"{"xy"[i % 2]}"\n' for i in range(60))
    with pytest.raises(LearningError, match=r"^[^\n]*no text column 'sort'; it has a\\nb\Z"):
        table(tmp_path, text, name="text", text_column="sort")
    records = "".join(json.dumps({"a": i, "label": "xy"[i % 2] + "\nz"}) + "\n" for i in range(60))
    task = load_task(TaskSpec(name="table", data=str(write(tmp_path / "x.jsonl", records))))
    with pytest.raises(LearningError, match=r"^[^\n]*it has x\\nz, y\\nz\Z"):
        task.sample_of("sort", random.Random(0))


def test_a_very_long_number_in_json(tmp_path: Path) -> None:
    with pytest.raises(LearningError):
        read_rows(str(write(tmp_path / "x.jsonl", '{"label": ' + "1" * 5000 + "}\n")))


def test_json_lines_end_at_line_feeds_only(tmp_path: Path) -> None:
    assert read_rows(str(write(tmp_path / "x.jsonl", '{"note": "a\u2028b", "label": "x"}\n'))).cells == [
        ["a\u2028b", "x"]
    ]


def test_a_path_too_long() -> None:
    with pytest.raises(LearningError):
        read_rows("x" * 5000)


fuzzed = settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])


def reads_or_refuses(path: Path, content: bytes, name: str = "table") -> None:
    """What is read is fit to train on; what is not is refused, and nothing else happens."""
    try:
        task = load_task(TaskSpec(name=name, data=str(write(path, content))))  # type: ignore[arg-type]
    except LearningError:
        return
    assert isinstance(task, TableTask)
    assert np.isfinite(task.table.features).all()
    assert len(task.table.features) == len(task.table.labels) >= MIN_ROWS
    assert 2 <= len(task.labels) <= MAX_LABELS


@given(content=st.binary(max_size=200), suffix=st.sampled_from([".csv", ".jsonl", ""]))
@fuzzed
def test_fuzz_any_bytes(tmp_path: Path, content: bytes, suffix: str) -> None:
    reads_or_refuses(tmp_path / f"x{suffix}", content)


@given(at=st.integers(0, 400), put=st.binary(max_size=6), cut=st.integers(0, 40), suffix=st.sampled_from("cj"))
@fuzzed
def test_fuzz_spoiled_files(tmp_path: Path, at: int, put: bytes, cut: int, suffix: str) -> None:
    csv = lines().encode()
    jsonl = "".join(json.dumps({"a": i, "label": "ab"[i % 2]}) + "\n" for i in range(60)).encode()
    whole = csv if suffix == "c" else jsonl
    reads_or_refuses(tmp_path / ("x.csv" if suffix == "c" else "x.jsonl"), whole[:at] + put + whole[at + cut :])


ODD = st.sampled_from(
    ["0", "-1", "1e308", "-1e308", "5e-324", "inf", "nan", "", "?", "a", "A b", "1_0", "é", "\x00", "٣"]
)


@given(
    columns=st.lists(st.lists(ODD, min_size=1, max_size=5), min_size=1, max_size=4),
    labels=st.lists(st.sampled_from(["a", "b", "healthy", "disease", "", "1"]), min_size=1, max_size=4),
    name=st.sampled_from(["table", "text"]),
)
@fuzzed
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_fuzz_odd_cells(tmp_path: Path, columns: list[list[str]], labels: list[str], name: str) -> None:
    rows = [[*(c[i % len(c)] for c in columns), labels[i % len(labels)]] for i in range(60)]
    header = ",".join([f"c{i}" for i in range(len(columns))] + ["label"])
    reads_or_refuses(tmp_path / "x.csv", (header + "\n" + "".join(",".join(r) + "\n" for r in rows)).encode(), name)
