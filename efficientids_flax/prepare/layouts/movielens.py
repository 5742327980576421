"""MovieLens ratings: 100K, 1M and 10M, and the CSV files of 20M, 25M, 32M and latest."""

from efficientids_flax.prepare.forms import Delimited, Field, Layout, Table, plain

WHOLE, RATING = r"\d+", r"\d+(\.\d+)?"
RATINGS = ("user", "item", "rating", "time")
GENRES = (
    "unknown", "Action", "Adventure", "Animation", "Children's", "Comedy", "Crime", "Documentary",
    "Drama", "Fantasy", "Film-Noir", "Horror", "Musical", "Mystery", "Romance", "Sci-Fi",
    "Thriller", "War", "Western",
)  # fmt: skip
NO_GENRES = ("(no genres listed)",)
LATIN = ("utf-8", "latin-1")

# fmt: off
LAYOUTS = (
    Layout(
        "movielens-100k", "MovieLens 100K",
        (Table(("u.data",), Delimited("\t", RATINGS, (WHOLE, WHOLE, RATING, WHOLE)),
               plain(*RATINGS)),),
        (Table(("u.item",), Delimited("|", ("item", "title", "released", "video", "imdb", *GENRES),
                                      encodings=LATIN),
               (*plain("item", "title"), Field("text", GENRES, flags=True))),),
        ("u.user", "u.genre", "u.info", "u.occupation", "u?.base", "u?.test"),
    ),
    Layout(
        "movielens-dat", "MovieLens 1M or 10M",
        (Table(("ratings.dat",), Delimited("::", RATINGS, (WHOLE, WHOLE, RATING, WHOLE)),
               plain(*RATINGS)),),
        (Table(("movies.dat",), Delimited("::", ("item", "title", "text"), encodings=LATIN),
               (*plain("item", "title"), Field("text", ("text",), True, "|", absent=NO_GENRES))),),
        ("users.dat", "tags.dat"),
    ),
    Layout(
        "movielens-csv", "MovieLens 20M, 25M, 32M or latest",
        (Table(("ratings.csv",), Delimited(",", quote='"'),
               (Field("user", ("userId",), True), Field("item", ("movieId",), True),
                Field("rating", ("rating",), True), Field("time", ("timestamp",), True))),),
        (Table(("movies.csv",), Delimited(",", quote='"'),
               (Field("item", ("movieId",), True), Field("title", ("title",), True),
                Field("text", ("genres",), True, "|", absent=NO_GENRES))),),
        ("tags.csv", "links.csv", "genome-*.csv"),
    ),
)
# fmt: on
