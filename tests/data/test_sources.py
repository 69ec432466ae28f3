import gzip
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fedtrain.config import Config, build_config
from fedtrain.data.records import Records
from fedtrain.data.sources import load_records
from fedtrain.data.speeches import VOCABULARY, encode_text
from fedtrain.errors import ConfigError, DataError, FedtrainError

PLAY = "A:\nabcdef\n\nB:\nxyz\n\nA:\nghijkl\n\nC:\né?\n"


def make_config(source: str, path: Path | None = None, **data: Any) -> Config:
    return build_config(
        {"data": {"source": source, "path": path, **data}, "secure_aggregation": {"mode": "off"}}
    )


def load(source: str, path: Path | None = None, **data: Any) -> Records:
    return load_records(make_config(source, path, **data))


def write_idx(path: Path, array: np.ndarray, *, compress: bool = False) -> None:
    header = bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    content = header + array.astype(np.uint8).tobytes()
    path.write_bytes(gzip.compress(content) if compress else content)


def write_image(path: Path, value: int, size: tuple[int, int] = (4, 3), mode: str = "L") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, value if mode == "L" else (value, 0, 0)).save(path)


def test_digits_are_images_of_public_range_and_classes():
    records = load("sklearn:digits")
    assert records.features.shape == (1797, 1, 8, 8)
    assert records.public.value_range == (0.0, 16.0)
    assert records.public.label_names == tuple("0123456789")


def test_breast_cancer_is_a_named_table():
    records = load("sklearn:breast_cancer")
    assert len(records) == 569
    assert records.public.columns[0] == "mean radius"
    assert records.public.label_names == ("malignant", "benign")


@pytest.mark.parametrize(
    ("source", "data", "message"),
    [
        ("cvs", {"label": "y"}, "data.label has no effect"),
        ("sklearn:digit", {}, "unknown; did you mean 'sklearn:digits'"),
        ("csv", {"label": "y"}, "data.path is missing"),
        ("npz", {"person_column": "id"}, "data.person_column has no effect"),
        ("idx", {"path": "nowhere"}, "'nowhere' does not exist"),
        ("npz", {"path": "."}, "is a folder, data.source = 'npz' needs a file"),
        ("sklearn:digits", {"path": "x"}, "data.path = 'x' has no effect"),
        ("sklearn:digits", {"image_size": (8, 8)}, "data.image_size has no effect"),
    ],
)
def test_source_that_cannot_be_is_refused(source, data, message):
    with pytest.raises(FedtrainError, match=message):
        load_records(build_config({"data": {"source": source, **data}}))


@pytest.mark.parametrize("compress", [False, True])
def test_idx_reads_train_and_central_test(tmp_path, compress):
    suffix = ".gz" if compress else ""
    images = np.arange(5 * 2 * 3, dtype=np.uint8).reshape(5, 2, 3)
    for part in ("train", "t10k"):
        write_idx(tmp_path / f"{part}-images-idx3-ubyte{suffix}", images, compress=compress)
        labels = np.array([3, 1, 3, 0, 1])
        write_idx(tmp_path / f"{part}-labels-idx1-ubyte{suffix}", labels, compress=compress)
    records = load("idx", tmp_path)
    assert np.array_equal(records.features[:, 0], images)
    assert records.labels.names == ("0", "1", "3")
    assert records.labels.codes.tolist() == [2, 1, 2, 0, 1]
    assert records.central is not None
    assert records.features.dtype == np.uint8


def test_idx_cut_short_is_refused(tmp_path):
    for name, array in (("images-idx3", np.zeros((2, 2, 2))), ("labels-idx1", np.zeros(2))):
        write_idx(tmp_path / f"train-{name}-ubyte", array)
    file = tmp_path / "train-images-idx3-ubyte"
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(DataError, match="holds 7 values, its header says 8"):
        load("idx", tmp_path)
    file.write_bytes(b"\x89PNG")
    with pytest.raises(DataError, match="is not an IDX file"):
        load("idx", tmp_path)


def test_idx_without_its_files_is_refused(tmp_path):
    with pytest.raises(DataError, match="not both there"):
        load("idx", tmp_path)


def test_mnist_has_its_known_shape(shared_data):
    records = load("idx", shared_data("mnist"))
    assert records.features.shape == (60000, 1, 28, 28)
    assert records.central[0].shape == (10000, 1, 28, 28)
    assert records.labels.names[records.labels.codes[0]] == "5"


def test_npz_reads_sites_and_central_test(tmp_path):
    x, site = np.random.default_rng(0).random((4, 3)), np.array(["b", "a", "b", "a"])
    np.savez(tmp_path / "d.npz", x=x, y=[0, 2, 0, 2], site=site, x_test=x, y_test=[2, 2, 2, 0])
    records = load("npz", tmp_path / "d.npz")
    assert records.sites.names == ("a", "b")
    assert records.sites.codes.tolist() == [1, 0, 1, 0]
    assert records.central[1].codes.tolist() == [1, 1, 1, 0]


def test_npz_reads_persons(tmp_path):
    x = np.zeros((4, 3))
    np.savez(tmp_path / "d.npz", x=x, y=[0, 2, 0, 2], person=["p9", "p1", "p1", "p9"])
    assert load("npz", tmp_path / "d.npz").persons.tolist() == [0, 1, 1, 0]
    np.savez(tmp_path / "d.npz", x=x, y=[0, 2, 0, 2])
    assert load("npz", tmp_path / "d.npz").persons is None


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"x": [[1.0]]}, "has no array 'y', only x"),
        ({"x": [[1.0], [2.0]], "y": [0]}, r"features have shape \(2, 1\) and labels \(1,\)"),
        ({"x": [[1.0]], "y": [0.5]}, "labels must be whole numbers or texts"),
        ({"x": [[1.0]], "y": [0], "person": [np.nan]}, "'person': persons must be whole numbers"),
        ({"x": [[1.0]], "y": [0], "person": [1, 2]}, r"'person': persons have shape \(2,\)"),
        ({"x": [["a"]], "y": [0]}, "features have dtype <U1"),
        ({"x": np.zeros((0, 2)), "y": np.zeros(0, int)}, "there are no records"),
    ],
)
def test_npz_that_holds_no_records_is_refused(tmp_path, arrays, message):
    np.savez(tmp_path / "d.npz", **arrays)
    with pytest.raises(DataError, match=message):
        load("npz", tmp_path / "d.npz")


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04broken", b"text"])
def test_npz_that_is_none_is_refused(tmp_path, content):
    (tmp_path / "d.npz").write_bytes(content)
    with pytest.raises(DataError, match="cannot be read as npz"):
        load("npz", tmp_path / "d.npz")


def test_images_take_class_and_site_from_folders(tmp_path):
    for site, kind, value in (("north", "cat", 10), ("north", "dog", 20), ("south", "cat", 30)):
        write_image(tmp_path / site / kind / "1.png", value)
    records = load("images", tmp_path)
    assert records.features.shape == (3, 1, 3, 4)
    assert records.features[:, 0, 0, 0].tolist() == [10, 20, 30]
    assert (records.labels.names, records.sites.names) == (("cat", "dog"), ("north", "south"))


def test_images_with_one_in_colour_all_have_three_channels(tmp_path):
    write_image(tmp_path / "cat" / "1.png", 10)
    write_image(tmp_path / "dog" / "1.png", 20, mode="RGB")
    records = load("images", tmp_path)
    assert records.features.shape == (2, 3, 3, 4)
    assert records.features[:, :, 0, 0].tolist() == [[10, 10, 10], [20, 0, 0]]


def test_images_of_two_sizes_need_image_size(tmp_path):
    write_image(tmp_path / "cat" / "1.png", 1)
    write_image(tmp_path / "cat" / "2.png", 1, size=(8, 8))
    with pytest.raises(DataError, match=r"2.png has 8x8 pixels.*data.image_size = \[3, 4\]"):
        load("images", tmp_path)
    assert load("images", tmp_path, image_size=(5, 6)).features.shape == (2, 1, 5, 6)


def test_image_that_is_none_is_refused_by_name(tmp_path):
    write_image(tmp_path / "cat" / "1.png", 1)
    (tmp_path / "cat" / "2.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"2\.png: cannot be read as an image"):
        load("images", tmp_path)


def test_speeches_become_windows_that_do_not_overlap(tmp_path):
    (tmp_path / "play.txt").write_text(PLAY, encoding="utf-8")
    records = load("text", tmp_path / "play.txt", sequence_length=2)
    texts = ["".join(VOCABULARY[i] for i in ids) for ids in records.features]
    labels = [records.labels.names[code] for code in records.labels.codes]
    assert [t + n for t, n in zip(texts, labels, strict=True)] == [
        "abc",
        "def",
        "\ngh",
        "ijk",
        "xyz",
    ]
    assert records.sites.names == ("A", "B")  # C has less than a window
    assert records.public.label_names == VOCABULARY


def test_text_is_encoded_in_a_fixed_vocabulary():
    assert len(VOCABULARY) == 97
    assert encode_text("\n ~é\x7f😀\t").tolist() == [0, 1, 95, 96, 96, 96, 96]


def test_tinyshakespeare_has_its_speakers(shared_data):
    records = load("text", shared_data("shakespeare") / "tinyshakespeare.txt")
    assert "ROMEO" in records.sites.names
    assert len(records.sites.names) > 250
    assert records.features.shape[1] == 32


MODULE = """
import numpy as np
x = np.arange(12.0).reshape(6, 2)
def pair(): return x, [0, 1, 0, 1, 0, 1]
def sites(): return {"b": (x[:2], [0, 1]), "a": (x[2:], [1, 1, 0, 0])}
def given(path): return x, [path] * 6
def wrong(): return x
def persons(): return x, [0, 1, 0, 1, 0, 1], ["q", "p", "p", "q", "r", "r"]
a = x[2:], [1, 1, 0, 0], [2, 3, 2, 3]
def persons_by_site(): return {"b": (x[:2], [0, 1], [5, 5]), "a": a}
def persons_at_one(): return {"b": (x[:2], [0, 1], [5, 5]), "a": a[:2]}
def persons_short(): return {"b": (x[:2], [0, 1], [5]), "a": a}
def uneven(): return {"b": (x[:2], [0, 1]), "a": (x[:2, :1], [1, 1])}
"""


@pytest.fixture
def module(tmp_path, monkeypatch):
    name = f"records_{tmp_path.name.replace('-', '_')}"
    (tmp_path / f"{name}.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    return name


def test_function_in_the_current_folder_gives_records(module):
    records = load(f"{module}:pair")
    assert records.features.shape == (6, 2)
    assert records.sites is None


def test_function_gives_records_by_site_in_its_order(module):
    records = load(f"{module}:sites")
    assert records.sites.names == ("b", "a")
    assert records.sites.codes.tolist() == [0, 0, 1, 1, 1, 1]


@pytest.mark.parametrize(
    ("name", "expected"), [("persons", [0, 1, 1, 0, 2, 2]), ("persons_by_site", [0, 0, 1, 2, 1, 2])]
)
def test_function_says_persons_in_a_third_array(module, name, expected):
    assert load(f"{module}:{name}").persons.tolist() == expected


def test_function_is_passed_the_path(module):
    assert load(f"{module}:given", "some/where").labels.names == ("some/where",)


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        ("absent", ConfigError, "has no function 'absent'"),
        ("wrong", DataError, r"returned ndarray; return \(features, labels\) or"),
        ("persons_at_one", DataError, r"\(a\): persons at some sites only; return all or none"),
        ("persons_short", DataError, r"\(b\): persons have shape \(1,\) and there are 2 records"),
        ("uneven", DataError, r"\(a\): records have shape \(1,\), others \(2,\)"),
    ],
)
def test_function_that_gives_no_records_is_refused(module, name, error, message):
    with pytest.raises(error, match=message):
        load(f"{module}:{name}")


def test_module_that_is_not_there_is_refused():
    with pytest.raises(ConfigError, match="there is no module 'nowhere_to_be_found'"):
        load("nowhere_to_be_found:f")
