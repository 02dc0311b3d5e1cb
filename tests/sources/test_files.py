"""The ways in which people write tables: each read to the same rows, with what was found said."""

from __future__ import annotations

import bz2
import gzip
import lzma
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import Ridge
from sklearn.tree import DecisionTreeClassifier

from whence.errors import InvalidInput
from whence.sources.files import read_frame
from whence.sources.models import fit_table
from whence.sources.tables import Table, is_label, read_table

_CITIES = ["Köln", "Paris", "Köln", "Rom", "Paris", "Rom"]
FRAME = pd.DataFrame(
    {
        "size": [1.5, 2.25, 1234.5, 4.0, 1000.0, 0.5],
        "city": _CITIES,
        "y": [10.5, 20.0, 31.0, 42.0, 53.5, 60.0],
    }
)


def same(table: Table) -> bool:
    """Return whether a table holds the rows above."""
    return (
        np.allclose(table.X["size"].astype(float), FRAME["size"])
        and list(table.X["city"]) == _CITIES
        and np.allclose(table.y.astype(float), FRAME["y"])
    )


def read(path: Path, content: bytes | str, target: str = "y") -> Table:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_table(path, target)


def said(table: Table, words: str) -> bool:
    return any(words in note for note in table.notes)


@pytest.mark.parametrize(
    ("separator", "word"), [(",", ""), (";", "semicolons"), ("\t", "tabs"), ("|", "bars")]
)
def test_separators(tmp_path: Path, separator: str, word: str) -> None:
    table = read(tmp_path / "a.csv", FRAME.to_csv(index=False, sep=separator))
    assert same(table)
    assert said(table, f"separated by {word}") == bool(word)


def test_spaces_between_columns(tmp_path: Path) -> None:
    assert same(read(tmp_path / "a.dat", FRAME.to_string(index=False)))


@pytest.mark.parametrize(
    ("encoding", "word"),
    [
        ("utf-8", ""),
        ("utf-8-sig", ""),
        ("utf-16", "UTF-16"),
        ("utf-16-le", "UTF-16"),
        ("utf-16-be", "UTF-16"),
        ("utf-32", "UTF-32"),
        ("latin-1", "Windows-1252"),
    ],
)
def test_encodings(tmp_path: Path, encoding: str, word: str) -> None:
    table = read(tmp_path / "a.csv", FRAME.to_csv(index=False).encode(encoding))
    assert same(table)
    assert said(table, "The file is read as") == bool(word)
    assert said(table, word)


@pytest.mark.parametrize("ending", [".gz", ".bz2", ".xz"])
def test_compressed(tmp_path: Path, ending: str) -> None:
    packed = {".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress}[ending]
    content = FRAME.to_csv(index=False, sep=";").encode("utf-16")
    assert same(read(tmp_path / f"a.csv{ending}", packed(content)))
    assert same(read(tmp_path / "no-ending-that-says-so", packed(content)))


def test_an_archive_of_one_file(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("a.csv", FRAME.to_csv(index=False))
    assert same(read_table(tmp_path / "a.zip", "y"))
    with zipfile.ZipFile(tmp_path / "a.zip", "a") as archive:
        archive.writestr("b.csv", FRAME.to_csv(index=False))
    with pytest.raises(InvalidInput, match="an archive of one file. Got 2 files"):
        read_table(tmp_path / "a.zip", "y")


def test_what_is_cut_short_gets_a_sentence(tmp_path: Path) -> None:
    whole = gzip.compress(FRAME.to_csv(index=False).encode())
    with pytest.raises(InvalidInput, match="cut short: copy or download it again"):
        read(tmp_path / "a.csv.gz", whole[:-12])
    with pytest.raises(InvalidInput, match="Expected an Excel file.*copy or download it again"):
        read(tmp_path / "a.xlsx", b"PK\x03\x04 and no more")
    with pytest.raises(InvalidInput, match="Expected a Parquet file.*copy or download it again"):
        read(tmp_path / "a.parquet", b"PAR1")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
@pytest.mark.parametrize("separator", [",", ";"])
def test_a_text_cut_at_any_byte_is_noticed(tmp_path: Path, encoding: str, separator: str) -> None:
    rows = FRAME.assign(y=["Köln, Süd", "b", "c", "Köln, Süd", "b", "c"])
    whole = rows.to_csv(index=False, sep=separator).encode(encoding)
    path = tmp_path / "a.csv"
    believed = []
    for size in range(len(whole.splitlines()[0]) + 40, len(whole)):
        path.write_bytes(whole[:size])
        try:
            _, notes = read_frame(path)
        except InvalidInput:
            continue
        ends = whole[:size].rstrip(b"\0").endswith(b"\n")
        if not ends and not any("The last line of the file has no end" in note for note in notes):
            believed.append(size)
    assert believed == []
    path.write_bytes(whole)
    assert read_frame(path)[0].shape == (6, 3)


def test_a_row_with_too_few_cells_is_named(tmp_path: Path) -> None:
    text = 'size,city,y\n1,"Köln,\nSüd",1\n\n2,Rom\n3,Paris,2\n'
    with pytest.raises(InvalidInput, match=r"Expected 3 cells .* header has\. Got 2 in line 5\. "):
        read(tmp_path / "a.csv", text)
    with pytest.raises(InvalidInput, match="Got 2 in line 5 and fewer than 3 in 1 more"):
        read(tmp_path / "a.csv", text + "4\n")
    with pytest.raises(InvalidInput, match="in line 4, the last: the file seems to be cut short"):
        read(tmp_path / "a.csv", "size,city,y\n1,Rom,2\n2,Rom,3\n3,Paris")
    with pytest.raises(InvalidInput, match="Expected 4 cells .* as line 2 has. Got 3 in line 3"):
        read(tmp_path / "a.csv", "size,city,y\n0,1,Rom,2\n2,Rom,3\n3,Paris,4\n")
    with pytest.raises(InvalidInput, match="Expected 3 cells .* as most lines have. Got 2"):
        read(tmp_path / "a.csv", "5.1,red,0\n4.9,blue,1\n4.7,red,0\n5.0,blue,1\n4.9,red\n")
    with pytest.raises(InvalidInput, match="Expected 3 cells .* Got 2 in line 4"):
        read(tmp_path / "a.dat", "size city   y\n1 Rom   2\n2  'x' 3\n3 Paris\n")
    long = tmp_path / "long.csv"
    long.write_text(f'size,city,y\n1,"{"x" * 140_000}",\n2,Rom,3\n')
    assert read_frame(long)[0].shape == (2, 3)


def test_a_separator_at_the_end_of_each_row_is_no_cell(tmp_path: Path) -> None:
    lines = FRAME.to_csv(index=False).splitlines()
    table = read(tmp_path / "a.csv", "\n".join([lines[0], *(f"{line}," for line in lines[1:])]))
    assert same(table)
    assert same(read(tmp_path / "b.csv", "\n".join([f"{lines[0]},", *lines[1:]]) + "\n"))
    with pytest.raises(InvalidInput, match="Expected 3 cells .* header has. Got 2 in line 8"):
        read(tmp_path / "c.csv", "\n".join([f"{lines[0]},", *lines[1:]]) + "\n1,Rom")


def test_excel(tmp_path: Path) -> None:
    pytest.importorskip("openpyxl")
    with pd.ExcelWriter(tmp_path / "a.xlsx") as book:
        FRAME.to_excel(book, sheet_name="sales", index=False, startrow=3, startcol=1)
        book.sheets["sales"]["B1"] = "Sales of the year"
        pd.DataFrame({"more": [1]}).to_excel(book, sheet_name="more")
    table = read_table(tmp_path / "a.xlsx", "y")
    assert same(table)
    assert said(table, "The sheet 'sales' was read; the file has 2 sheets.")
    assert said(table, "1 row above the header was left out.")


def test_parquet_of_every_type(tmp_path: Path) -> None:
    dates = pd.date_range("2020-03-01", periods=6, freq="100D")
    frame = FRAME.assign(
        flag=pd.array([True, False, None, True, False, True], dtype="boolean"),
        whole=pd.array([1, None, 3, 4, 5, 6], dtype="Int64"),
        kind=pd.Categorical(["a", "b", "a", "b", None, "a"]),
        day=dates,
        span=pd.to_timedelta(np.arange(6), unit="h"),
    )
    frame.to_parquet(tmp_path / "a.parquet")
    table = read_table(tmp_path / "a.parquet", "y")
    assert same(table)
    assert table.X["flag"].tolist()[:2] == ["yes", "no"]
    assert table.X["whole"].isna().tolist() == [False, True, False, False, False, False]
    assert table.X["span"].tolist() == [3600.0 * i for i in range(6)]
    assert table.X["day, days from 2020-03-01"].tolist() == [100.0 * i for i in range(6)]
    assert table.X["day, month"].tolist()[:2] == ["Mar", "Jun"]


def test_decimal_commas(tmp_path: Path) -> None:
    german = "size;city;y\n1,5;Köln;10,5\n2,25;Paris;20\n1.234,5;Köln;31\n4;Rom;42\n"
    german += "1.000;Paris;53,5\n0,5;Rom;60\n"
    assert same(read(tmp_path / "a.csv", german))
    grouped = "a;b;y\n" + "".join(f"{i},5;{i}.000;{i * i}\n" for i in range(1, 9))
    table = read(tmp_path / "b.csv", grouped)
    assert table.X["b"].tolist() == [1000.0 * i for i in range(1, 9)]


def test_decimal_commas_reach_a_model_of_the_users_as_numbers(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"size": rng.normal(size=30), "plot": 3000 + 10.5 * np.arange(30)})
    frame["price"] = frame["size"] + 0.001 * frame["plot"] + rng.normal(size=30)
    frame.to_csv(tmp_path / "a.csv", sep=";", decimal=",", index=False)
    columns = ["size", "plot"]
    model = Ridge().fit(frame[columns], frame["price"])
    found = fit_table(read_table(tmp_path / "a.csv", target="price"), model=model).objective
    outputs = found.outputs(found.train)[:, 0]
    np.testing.assert_allclose(outputs, model.predict(frame[columns]), rtol=1e-9)


def test_json_is_told_from_separated_values(tmp_path: Path) -> None:
    frame = pd.DataFrame({"a": [1, 2, 3], "y": [0, 1, 1]})
    for lines in (True, False):
        frame.to_json(tmp_path / "a.json", orient="records", lines=lines)
        with pytest.raises(InvalidInput, match="Got JSON"):
            read_table(tmp_path / "a.json", target="y")


@pytest.mark.parametrize(
    ("cells", "numbers"),
    [
        (["$1,200", "$3.50", "$900"], [1200, 3.5, 900]),
        (["€ 12", "1,50 €", "€7"], [12, 1.5, 7]),
        (["12 %", "3.5%", "7 %"], [12, 3.5, 7]),
        (["1,234,567", "12", "999"], [1234567, 12, 999]),
        (["1 234", "12", "1 234 567,5"], [1234, 12, 1234567.5]),
        (["(12)", "7", "−3"], [-12, 7, -3]),
        (["12 km", "7km", "3.5 km"], [12, 7, 3.5]),
        (["1e3", "2.5E-1", "n/a"], [1000, 0.25, np.nan]),
        (["130", "?", "88"], [130, np.nan, 88]),
        (["1,5", "2", "0,25"], [1.5, 2, 0.25]),
    ],
)
def test_numbers_as_people_write_them(
    tmp_path: Path, cells: list[str], numbers: list[float]
) -> None:
    frame = pd.DataFrame({"a": cells * 3, "b": np.arange(9) % 4, "y": np.arange(9) * 1.5})
    table = read(tmp_path / "a.csv", frame.to_csv(index=False))
    np.testing.assert_allclose(table.X["a"].astype(float), numbers * 3)


@pytest.mark.parametrize(
    "cells",
    [
        ["00123", "04567", "00123"],  # a code
        ["12 km", "7 mi", "3 km"],  # two units
        ["A12", "B7", "A12"],
        ["low", "12", "high"],
        ["1.2.3", "1.3", "1.2.3"],
        ["555-1234", "555-9876", "555-1234"],
    ],
)
def test_what_is_no_number_stays_text(tmp_path: Path, cells: list[str]) -> None:
    frame = pd.DataFrame({"a": cells * 3, "y": np.arange(9) * 1.5, "b": np.arange(9) % 4})
    frame.to_excel(tmp_path / "a.xlsx", index=False)  # a CSV has no codes: 00123 is 123 there
    assert read_table(tmp_path / "a.xlsx", "y").X["a"].tolist() == cells * 3


def test_a_few_words_among_numbers_are_missing_and_named(tmp_path: Path) -> None:
    cells = [*map(str, range(30)), "unknown", "see notes"]
    frame = pd.DataFrame({"a": cells, "y": np.arange(32) * 1.5})
    table = read(tmp_path / "a.csv", frame.to_csv(index=False))
    assert table.X["a"].isna().sum() == 2
    assert said(table, "numbers, 'unknown', 'see notes' as missing: a.")


@pytest.mark.parametrize(
    "texts",
    [
        ["2021-01-05", "2021-02-04", "2021-03-06"],
        ["05/01/2021", "04/02/2021", "06/03/2021", "31/01/2021"],
        ["1/5/2021", "2/4/2021", "3/6/2021", "1/31/2021"],
        ["5 Jan 2021", "4 Feb 2021", "6 Mar 2021"],
        ["Jan 5, 2021", "Feb 4, 2021", "Mar 6, 2021"],
        ["20210105", "20210204", "20210306"],
    ],
)
def test_dates(tmp_path: Path, texts: list[str]) -> None:
    frame = pd.DataFrame({"day": texts * 4, "b": np.arange(len(texts) * 4) % 5})
    frame["y"] = np.arange(len(frame)) * 1.5
    frame.to_csv(tmp_path / "a.csv", index=False)
    table = read_table(tmp_path / "a.csv", "y")
    assert table.X["day, days from 2021-01-05"].tolist()[:3] == [0.0, 30.0, 60.0]
    assert said(table, "Read as days from 2021-01-05: day.")


def test_a_target_of_dates_is_refused(tmp_path: Path) -> None:
    frame = pd.DataFrame({"a": range(6), "y": [f"2021-01-{d:02}" for d in range(1, 7)]})
    with pytest.raises(InvalidInput, match="Got dates in 'y'"):
        read(tmp_path / "a.csv", frame.to_csv(index=False))


def test_lines_above_the_header(tmp_path: Path) -> None:
    above = "Report of the year\r\nMade by us\r\n\r\n"
    table = read(tmp_path / "a.csv", above + FRAME.to_csv(index=False, lineterminator="\r\n"))
    assert same(table)
    assert said(table, "3 lines before the table were left out.")
    assert same(read(tmp_path / "b.csv", "sep=;\n" + FRAME.to_csv(index=False, sep=";")))


def test_no_header(tmp_path: Path) -> None:
    bare = "5.1,red,0\n4.9,blue,1\n4.7,red,0\n5.0,blue,1\n4.9,red,1\n"
    table = read(tmp_path / "a.csv", bare, "column 3")
    assert (len(table.X), list(table.X.columns)) == (5, ["column 1", "column 2"])
    assert said(table, "The file has no header: its columns are called column 1 to column 3.")
    years = "country,1990,2000,y\nA,1,2,0\nB,3,4,1\nC,5,6,0\nB,7,8,1\n"
    assert list(read(tmp_path / "b.csv", years).X.columns) == ["country", "1990", "2000"]


def test_quoted_newlines_and_separators(tmp_path: Path) -> None:
    frame = FRAME.assign(city=["Köln,\nam Rhein", 'the "big" one', *_CITIES[2:]])
    table = read(tmp_path / "a.csv", frame.to_csv(index=False))
    assert list(table.X["city"]) == list(frame["city"])


def test_names_of_columns(tmp_path: Path) -> None:
    text = " a ,b,b,b,Y\n" + "".join(f"{i % 3},{i},{i % 4},{i % 5},{i * 1.5}\n" for i in range(9))
    table = read(tmp_path / "a.csv", text)  # the target, but for its capital
    assert list(table.X.columns) == ["a", "b", "b (2)", "b (3)"]
    assert table.y.name == "Y"
    assert said(table, "Columns of one name are told apart: b (2), b (3).")
    text = "a;b;b;b;Y\n" + "".join(f"{i % 3},5;{i}.000;{i}.500;x;{i * 1.5}\n" for i in range(9))
    table = read(tmp_path / "b.csv", text, "Y")
    assert table.X["b"].tolist() == [1000 * i for i in range(9)]
    assert list(table.X.columns) == ["a", "b", "b (2)"]


def test_rows_named_as_r_does(tmp_path: Path) -> None:
    lines = ["size,city,y", *(f"r{i},{a},{b},{c}" for i, (a, b, c) in enumerate(FRAME.values))]
    table = read(tmp_path / "a.csv", "\n".join(lines) + "\n")
    assert same(table)
    assert table.row("r3") == "r3"


def test_columns_that_say_nothing_or_all_are_left_out(tmp_path: Path) -> None:
    n = 40
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"row": range(1, n + 1), "a": rng.normal(size=n)})
    frame["customer_id"] = rng.permutation(9000)[:n]
    frame["email"] = [f"person{i}@example.org" for i in range(n)]
    frame["year"] = range(1980, 1980 + n)  # counts the rows, and says when
    frame["empty"], frame["same"] = np.nan, 1
    frame["alive"] = np.where(rng.random(n) > 0.5, "yes", "no")
    frame["y"] = (frame["alive"] == "yes").astype(int)
    table = read(tmp_path / "a.csv", frame.to_csv(index=False))
    assert list(table.X.columns) == ["a", "year"]
    assert said(table, "the numbers of the rows were left out: row, customer_id")
    assert said(table, "a text of its own in nearly every row were left out: email")
    assert said(table, "say the same as y in every row were left out: alive")
    cents = frame.assign(y=frame["a"] * 3 + 1)
    assert "a" not in read(tmp_path / "b.csv", cents.to_csv(index=False)).X.columns


def test_what_a_target_is() -> None:
    assert is_label(pd.Series([0, 1] * 5))
    assert is_label(pd.Series(["a", "b"]))
    assert not is_label(pd.Series(range(16)))  # each number once
    assert not is_label(pd.Series([0.5, 1.0] * 20))
    assert is_label(pd.Series(list(range(10)) * 10))


def test_labels_that_read_as_missing(tmp_path: Path) -> None:
    frame = pd.DataFrame({"a": np.arange(40) % 7, "y": ["None", "NA", "mild", "grave"] * 10})
    frame["copy"], frame.loc[4, "y"] = frame["y"], ""
    frame.loc[4, "copy"] = ""
    table = read(tmp_path / "a.csv", frame.to_csv(index=False))
    assert table.y.value_counts().to_dict() == {"mild": 10, "grave": 10, "NA": 10, "None": 9}
    assert list(table.X) == ["a"]  # the copy of the target tells nothing of it, and all
    assert said(table, "Taken as labels of y, not as missing: NA in 10, None in 9 rows.")
    assert said(table, "1 row without a target was left out.")
    known = pd.read_csv(tmp_path / "a.csv").dropna(subset="y")
    fitted = DecisionTreeClassifier(max_depth=1).fit(known[["a"]], known["y"])
    assert len(fit_table(table, model=fitted).y) == 20  # to this model they were missing
    frame.to_excel(tmp_path / "a.xlsx", index=False)
    assert set(read_table(tmp_path / "a.xlsx", "y").y) == {"mild", "grave", "NA", "None"}
    every = read(tmp_path / "c.csv", frame.assign(y=["None", "NA"] * 20).to_csv(index=False))
    assert every.y.value_counts().to_dict() == {"None": 20, "NA": 20}
    with pytest.raises(InvalidInput, match="Got 0 in"):
        read(tmp_path / "d.csv", frame.assign(y=np.nan).to_csv(index=False))
    for numbers in ([1, 2, "NA", 0] * 10, [True, False, "NA", True] * 10):
        table = read(tmp_path / "b.csv", frame.assign(y=numbers).to_csv(index=False))
        assert len(table.y) == 30  # among numbers and flags NA is missing


def test_labels_that_name_the_rows_are_refused(tmp_path: Path) -> None:
    frame = pd.DataFrame({"a": range(9), "y": [f"name {i}" for i in range(9)]})
    with pytest.raises(InvalidInput, match="Expected a target of labels that rows share"):
        read(tmp_path / "a.csv", frame.to_csv(index=False))


@pytest.mark.slow
def test_a_million_rows(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(rng.normal(size=(1_000_000, 6)), columns=list("abcdef")).round(3)
    frame["city"] = rng.choice(["Paris", "Rome", "Oslo"], len(frame))
    frame["y"] = np.where(frame.a + rng.normal(size=len(frame)) > 0, "yes", "no")
    frame.to_csv(tmp_path / "a.csv", index=False)
    assert len(read_table(tmp_path / "a.csv", "y").X) == 1_000_000


def test_a_label_that_one_row_has_is_left_out(tmp_path: Path) -> None:
    frame = pd.DataFrame({"a": np.arange(30) % 7, "y": ["x", "y", "z"] * 9 + ["u", "v", "x"]})
    table = read(tmp_path / "a.csv", frame.to_csv(index=False))
    assert len(table.X) == len(table.raw) == 28
    assert said(table, "Rows with a label of their own were left out: u, v.")


def test_a_target_is_what_it_is_said_to_be(tmp_path: Path) -> None:
    frame = pd.DataFrame({"a": np.arange(40) % 7, "y": np.arange(40) % 5, "z": ["u", "v"] * 20})
    frame["half"] = frame["y"] / 2
    frame.to_csv(tmp_path / "a.csv", index=False)
    table = read_table(tmp_path / "a.csv", "y")
    assert table.classification
    assert said(table, "a label with 5 values; --target-kind quantity takes it as one.")
    assert not read_table(tmp_path / "a.csv", "y", kind="quantity").classification
    table = read_table(tmp_path / "a.csv", "half", kind="label")
    assert table.classification
    assert set(table.y) == {"0.0", "0.5", "1.0", "1.5", "2.0"}
    with pytest.raises(InvalidInput, match="Expected numbers in 'z'"):
        read_table(tmp_path / "a.csv", "z", kind="quantity")
