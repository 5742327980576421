"""Layouts of data sets, each from small files written as their publishers write them."""

import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from efficientids_flax.prepare import Choice
from efficientids_flax.prepare.layouts import LAYOUTS, SourceError, recognise
from efficientids_flax.prepare.stage import stage

U_DATA = "196\t242\t3\t881250949\n186\t302\t3\t891717742\n22\t377\t1\t878887116\n"
FLAGS = "|".join("1" if at in {3, 4, 5} else "0" for at in range(19))
U_ITEM = (
    "242|Kolya (1996)|24-Jan-1997||http://us.imdb.com/M/title-exact?Kolya%20(1996)|"
    f"{FLAGS}\n302|Misérables, Les (1995)|01-Jan-1995||http://us.imdb.com/|{FLAGS}\n"
    f"377|unknown||||{'|'.join('0' * 19)}\n"
)
DAT = "1::122::5::838985046\n1::185::4.5::838983525\n2::122::3::978302109\n"
MOVIES_DAT = (
    "122::Boomerang (1992)::Comedy|Romance\n185::Net, The (1995)::Action|Crime|Thriller\n"
    "73::Misérables, Les (1995)::Drama|Musical\n"
)
RATINGS_CSV = "userId,movieId,rating,timestamp\r\n1,2,3.5,1112486027\r\n1,29,3.5,1112484676\r\n"
MOVIES_CSV = (
    "movieId,title,genres\r\n2,Jumanji (1995),Adventure|Children|Fantasy\r\n"
    '29,"City of Lost Children, The (Cité des enfants perdus, La) (1995)",(no genres listed)\r\n'
)
REVIEW_2014 = {
    "reviewerID": "A2SUAM1J3GNN3B", "asin": "0000013714", "reviewerName": "J. McDonald",
    "helpful": [2, 3], "reviewText": "For my husband\u2028who \"plays\".",
    "overall": 5.0, "summary": "Heavenly", "unixReviewTime": 1252800000,
    "reviewTime": "09 13, 2009",
}  # fmt: skip
META_2014 = (
    "{'asin': '0000013714', 'description': 'Composed by \"Kirk\" Anderson\\'s.', 'title': 'Heavenly"
    " Highway Hymns', 'price': 7.99, 'related': {'also_viewed': ['B00JHONN1S']},"
    " 'salesRank': {'Toys': 211836}, 'brand': 'Coxlures', 'categories': [['Books', 'Music']]}\n"
    "{'asin': '0000031852', 'imUrl': 'http://a.b/c.jpg'}\n"
)
REVIEW_2018 = {
    "overall": 5.0, "vote": "2", "verified": True, "reviewTime": "01 1, 2018",
    "reviewerID": "AUI6WTTT0QZYS", "asin": "5120053084", "style": {"Size:": "Large"},
    "reviewerName": "Abbey", "reviewText": "I now have 4", "summary": "Comfy",
    "unixReviewTime": 1514764800,
}  # fmt: skip
META_2018 = {
    "asin": "5120053084", "title": "Girls Ballet Tutu", "feature": ["Botiquecutie"],
    "description": ["This tutu is great", ""], "price": "$3.17", "also_buy": ["B00JHONN1S"],
    "brand": "Coxlures", "category": ["Sports & Outdoors", "Dance"], "main_cat": "Toys",
}  # fmt: skip
REVIEW_2023 = {
    "sort_timestamp": 1634275259292, "rating": 3.0, "helpful_votes": 0, "title": "Meh",
    "text": "These were lightweight", "images": [{"small_image_url": "https://m.media/x.jpg"}],
    "asin": "B088SZDGXG", "verified_purchase": True, "parent_asin": "B08BBQ29N5",
    "user_id": "AEYORY2AVPMCPDV57CE337YU5LXA", "timestamp": 1634275259292,
}  # fmt: skip
META_2023 = {
    "main_category": "All Beauty", "title": "Howard LC0008 Leather Conditioner",
    "average_rating": 4.8, "rating_number": 10, "features": [], "description": ["Soft", "Clean"],
    "price": None, "images": [], "videos": [], "store": "Howard", "categories": ["Beauty"],
    "details": {"UPC": "617390882781"}, "parent_asin": "B08BBQ29N5", "bought_together": None,
}  # fmt: skip
INTER = "user_id:token\titem_id:token\trating:float\ttimestamp:float\n1\t10\t3\t881250949\n"
ITEM = (
    "item_id:token\tmovie_title:token_seq\trelease_year:token\tclass:token_seq\n"
    '10\t"Great" Escape, The\t1963\tAction War\n'
)


def lines(*records: Any) -> str:
    return "".join(json.dumps(one) + "\n" for one in records)


# name of the data set -> its files, layout, rows as they are staged, texts of items
Case = tuple[dict[str, str | bytes], str, list[tuple[Any, ...]], list[tuple[Any, ...]]]
CASES: dict[str, Case] = {
    "MovieLens 100K": (
        {"u.data": U_DATA, "u.item": U_ITEM.encode("latin-1"), "u.user": "1|24|M|other|85711\n",
         "u.genre": "unknown|0\n", "u1.base": U_DATA, "README": "about", "mku.sh": "#!/bin/sh\n"},
        "movielens-100k",
        [("196", "242", 3.0, 881250949), ("186", "302", 3.0, 891717742),
         ("22", "377", 1.0, 878887116)],
        [("242", "Kolya (1996)", "Animation, Children's, Comedy"),
         ("302", "Misérables, Les (1995)", "Animation, Children's, Comedy"),
         ("377", "unknown", None)],
    ),
    "MovieLens 1M, in latin-1": (
        {"ratings.dat": DAT, "movies.dat": MOVIES_DAT.encode("latin-1"),
         "users.dat": "1::F::1::10::48067\n", "README": ""},
        "movielens-dat",
        [("1", "122", 5.0, 838985046), ("1", "185", 4.5, 838983525), ("2", "122", 3.0, 978302109)],
        [("122", "Boomerang (1992)", "Comedy, Romance"),
         ("185", "Net, The (1995)", "Action, Crime, Thriller"),
         ("73", "Misérables, Les (1995)", "Drama, Musical")],
    ),
    "MovieLens 10M, in UTF-8": (
        {"ratings.dat": DAT, "movies.dat": MOVIES_DAT, "tags.dat": "15::49::good!::1215184630"},
        "movielens-dat",
        [("1", "122", 5.0, 838985046), ("1", "185", 4.5, 838983525), ("2", "122", 3.0, 978302109)],
        [("122", "Boomerang (1992)", "Comedy, Romance"),
         ("185", "Net, The (1995)", "Action, Crime, Thriller"),
         ("73", "Misérables, Les (1995)", "Drama, Musical")],
    ),
    "MovieLens 20M and later": (
        {"ratings.csv": RATINGS_CSV, "movies.csv": MOVIES_CSV, "tags.csv": "userId,movieId,tag\n",
         "links.csv": "movieId,imdbId,tmdbId\n", "genome-tags.csv": "tagId,tag\n"},
        "movielens-csv",
        [("1", "2", 3.5, 1112486027), ("1", "29", 3.5, 1112484676)],
        [("2", "Jumanji (1995)", "Adventure, Children, Fantasy"),
         ("29", "City of Lost Children, The (Cité des enfants perdus, La) (1995)", None)],
    ),
    "Amazon 2014": (
        {"reviews_Toys_5.json.gz": gzip.compress(lines(REVIEW_2014).encode()),
         "meta_Toys.json.gz": gzip.compress(META_2014.encode())},
        "amazon-2014",
        [("A2SUAM1J3GNN3B", "0000013714", 5.0, 1252800000)],
        [("0000013714", "Heavenly Highway Hymns",
          'Coxlures Books Music Composed by "Kirk" Anderson\'s.'), ("0000031852", None, None)],
    ),
    "Amazon 2014, ratings only": (
        {"ratings_Toys.csv": "A1YJEY40YUW4SE,7806397051,1.0,1391040000\n"
                             "A60XNB876KYML,B00JHONN1S,3.0,1397779200\n"},
        "amazon-2014",
        [("A1YJEY40YUW4SE", "7806397051", 1.0, 1391040000),
         ("A60XNB876KYML", "B00JHONN1S", 3.0, 1397779200)],
        [],
    ),
    "Amazon 2018": (
        {"Toys_5.json.gz": gzip.compress(lines(REVIEW_2018).encode()),
         "meta_Toys.json.gz": gzip.compress(lines(META_2018).encode())},
        "amazon-2018",
        [("AUI6WTTT0QZYS", "5120053084", 5.0, 1514764800)],
        [("5120053084", "Girls Ballet Tutu",
          "Coxlures Sports & Outdoors Dance Botiquecutie This tutu is great")],
    ),
    "Amazon 2018, ratings only": (
        {"Toys.csv": "5120053084,AUI6WTTT0QZYS,5.0,1514764800\n"},
        "amazon-2018",
        [("AUI6WTTT0QZYS", "5120053084", 5.0, 1514764800)],
        [],
    ),
    "Amazon 2023": (
        {"All_Beauty.jsonl.gz": gzip.compress(lines(REVIEW_2023).encode()),
         "meta_All_Beauty.jsonl.gz": gzip.compress(lines(META_2023).encode())},
        "amazon-2023",
        [("AEYORY2AVPMCPDV57CE337YU5LXA", "B08BBQ29N5", 3.0, 1634275259292)],
        [("B08BBQ29N5", "Howard LC0008 Leather Conditioner", "Howard Beauty Soft Clean")],
    ),
    "Amazon 2023, 5-core": (
        {"All_Beauty.csv": "user_id,parent_asin,rating,timestamp\n"
                           "AFSKPY37N3C43SOI5IEXEK5JSIYA,B07J3GH1W1,5.0,1547589356557\n"},
        "amazon-2023",
        [("AFSKPY37N3C43SOI5IEXEK5JSIYA", "B07J3GH1W1", 5.0, 1547589356557)],
        [],
    ),
    "Amazon 2023, with histories": (
        {"All_Beauty.train.csv": "user_id,parent_asin,rating,timestamp,history\n"
                                 "AFSKPY,B07J3GH1W1,5.0,1547589356557,\n"
                                 "AFSKPY,B07W397QG4,4.0,1593352422858,B07J3GH1W1 B000\n"},
        "amazon-2023",
        [("AFSKPY", "B07J3GH1W1", 5.0, 1547589356557),
         ("AFSKPY", "B07W397QG4", 4.0, 1593352422858)],
        [],
    ),
    "Amazon 2023, without times": (
        {"All_Beauty.csv": "user_id,parent_asin,rating\nAFSKPY,B07J3GH1W1,5.0\n"},
        "amazon-2023",
        [("AFSKPY", "B07J3GH1W1", 5.0)],
        [],
    ),
    "RecBole": (
        {"x.inter": INTER, "x.item": ITEM, "x.user": "user_id:token\tage:token\n1\t24\n",
         "x.kg": "head_id:token\trelation_id:token\ttail_id:token\n"},
        "recbole",
        [("1", "10", 3.0, 881250949)],
        [("10", '"Great" Escape, The', "Action War")],
    ),
    "RecBole, in parts": (
        {"x.part1.inter": "user_id:token\titem_id:token\ttimestamp:float\n1\t10\t1.5\n",
         "x.part2.inter": "user_id:token\titem_id:token\ttimestamp:float\n2\t11\t2e0\n"},
        "recbole",
        [("1", "10", 1500000), ("2", "11", 2000000)],
        [],
    ),
    "a table with usual names": (
        {"log.csv": '﻿timestamp,item_id,user_id\n5,a b,007\n\n3,"a,""b\n",7\n',
         "about.md": "text"},
        "table",
        [("007", "a b", 5), ("7", 'a,"b\n', 3)],
        [],
    ),
}  # fmt: skip


def write(files: dict[str, str | bytes], place: Path) -> Path:
    for name, text in files.items():
        (place / name).write_bytes(text.encode() if isinstance(text, str) else text)
    return place


def staged(
    source: Any, choice: Choice, place: Path
) -> tuple[list[tuple[Any, ...]], list[Any], Any]:
    """Rows with their ids, and texts, as they are handed to an engine."""
    found = recognise([str(source)], choice)
    place.mkdir()
    stage(found, place, max_bad=0, unit=None)
    names = {
        role: {
            one["code"]: one["id"] for one in pq.read_table(place / f"{role}s.parquet").to_pylist()
        }
        for role in ("user", "item")
    }
    rows = []
    for row in pq.read_table(place / "rows.parquet").to_pylist():
        ids = [names[role][row[role]] for role in ("user", "item")]
        rows.append((*ids, *(row[name] for name in ("rating", "time") if name in row)))
    texts = pq.read_table(place / "texts.parquet").to_pylist()
    return rows, [(one["id"], one["title"], one["text"]) for one in texts], found


@pytest.mark.parametrize("name", CASES)
def test_a_folder_as_it_is_published(name: str, tmp_path: Path):
    files, layout, rows, texts = CASES[name]
    folder = tmp_path / "source"
    folder.mkdir()
    got, described, found = staged(write(files, folder), Choice(), tmp_path / "staged")
    assert (found.layout, got, described) == (layout, rows, texts)


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case[1] != "table"])
def test_the_file_of_interactions_alone(name: str, tmp_path: Path):
    files, layout, rows, _ = CASES[name]
    first = next(iter(files))
    write({first: files[first]}, tmp_path)
    got, _, found = staged(tmp_path / first, Choice(layout=layout), tmp_path / "staged")
    assert (found.layout, got) == (layout, rows[: len(got)])


def test_what_is_not_read_is_told(tmp_path: Path):
    files, _, _, _ = CASES["MovieLens 20M and later"]
    write({**files, "notes.csv": "a,b\n"}, tmp_path)
    (tmp_path / "old").mkdir()
    assert recognise([str(tmp_path)], Choice()).remarks == ("not read: notes.csv", "not read: old/")
    [told] = recognise([str(tmp_path / "ratings.csv")], Choice()).remarks
    assert told == "movies.csv may describe the items and was not read; name it too"
    named = [str(tmp_path / name) for name in ("ratings.csv", "movies.csv")]
    assert recognise(named, Choice()).remarks == ()
    with pytest.raises(SourceError, match=r"notes.csv: does not fit the layout movielens-csv"):
        recognise([*named, str(tmp_path / "notes.csv")], Choice())


def test_every_layout_has_a_case():
    assert {case[1] for case in CASES.values()} == {*LAYOUTS, "table"}


def test_parquet_with_named_columns(tmp_path: Path):
    table = pa.table({
        "who": pa.array(["x", "y"]).dictionary_encode(), "what": pa.array([7, 2**60]),
        "when": pa.array([1_000_000_123, 5], pa.timestamp("ms", tz="UTC")),
        "stars": pa.array([1.5, 2], pa.float32()),
    })  # fmt: skip
    pq.write_table(table, tmp_path / "x.parquet")
    columns = {"user": "who", "item": "what", "time": "when", "rating": "stars"}
    got, _, found = staged(tmp_path / "*.parquet", Choice(columns=columns), tmp_path / "staged")
    assert got == [("x", "7", 1.5, 1_000_000_123_000), ("y", str(2**60), 2.0, 5000)]
    assert found.layout == "table"


def test_texts_in_the_table_itself(tmp_path: Path):
    (tmp_path / "x.tsv").write_text("u\ti\tname\n1\ta\t\n2\tb\tBee\n1\ta\tAnt \n2\ta\tother\n")
    columns = {"user": "u", "item": "i", "title": "name"}
    _, texts, _ = staged(tmp_path / "x.tsv", Choice(columns=columns), tmp_path / "staged")
    assert texts == [("b", "Bee", None), ("a", "Ant", None)]


def test_texts_in_a_file_of_items(tmp_path: Path):
    (tmp_path / "x.csv").write_text("u;i\n1;a\n")
    (tmp_path / "about.jsonl").write_text('{"i": "a", "name": "Ant", "tags": ["x", ["y"]]}\n')
    columns = {"user": "u", "item": "i", "title": "name", "text": "tags"}
    choice = Choice(columns=columns, items=str(tmp_path / "about.jsonl"))
    _, texts, _ = staged(tmp_path / "x.csv", choice, tmp_path / "staged")
    assert texts == [("a", "Ant", "x, y")]


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({"x.csv": "a,b\n1,2\n"}, "x.csv: begins with a, b\nLooked for:\n  movielens-100k: u.data"),
        ({"ratings.csv": ""}, "ratings.csv: is empty"),
        ({"u.data": U_DATA, "ratings.dat": DAT}, "fits several layouts, movielens-100k,"),
        ({"ml.zip": b"PK"}, "ml.zip: is an archive; unpack it"),
        ({"x.inter": "user:token\titem:token\n1\t2\n"}, "x.inter: begins with user:token, item"),
        ({}, "the folder holds no files"),
    ],
)  # fmt: skip
def test_what_is_no_layout_is_told_with_what_was_looked_for(
    files: dict[str, str | bytes], said: str, tmp_path: Path
):
    with pytest.raises(SourceError) as error:
        recognise([str(write(files, tmp_path))], Choice())
    assert said in str(error.value)


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"user": "u"}, "has no column for item: none is named so; its columns are u, i"),
        ({"user": "u", "item": "x"}, "has no column for item: x; its columns are u, i"),
        ({"user": "u", "item": "i", "time": "t"}, "has no column 't' (`time`); its columns are"),
    ],
)  # fmt: skip
def test_a_column_that_is_not_there(columns: dict[str, str], said: str, tmp_path: Path):
    (tmp_path / "x.csv").write_text("u,i\n1,2\n")
    with pytest.raises(SourceError) as error:
        recognise([str(tmp_path / "x.csv")], Choice(columns=columns))
    assert said in str(error.value)
