"""Amazon's product reviews of 2014, 2018 and 2023: reviews, ratings-only files, and products.

Files with ratings only have no header. Their columns are told apart by the ids: product ids begin
with B or a digit, reviewer ids with A. The 2014 release has the reviewer first, that of 2018 the
product.
"""

from efficientids_flax.prepare.forms import Delimited, Field, JsonLines, Layout, Table, plain

REVIEWER, PRODUCT = r"A[0-9A-Z]{9,27}", r"[B0-9][0-9A-Z]{9}"
RATING, TIME = r"\d(\.\d+)?", r"\d+"
JSON = ("*.json", "*.jsonl")
REVIEWS = (
    Field("user", ("reviewerID",), True), Field("item", ("asin",), True),
    Field("rating", ("overall",), True), Field("time", ("unixReviewTime",), True),
)  # fmt: skip
REVIEWS_2023 = (
    Field("user", ("user_id",), True), Field("item", ("parent_asin",), True),
    Field("rating", ("rating",), True), Field("time", ("timestamp",)),
)  # fmt: skip
PARAGRAPHS = " "

# fmt: off
LAYOUTS = (
    Layout(
        "amazon-2014", "Amazon reviews of 2014",
        (Table(JSON, JsonLines(loose=True), REVIEWS, lacks=("verified",)),
         Table(("*.csv",), Delimited(",", ("user", "item", "rating", "time"),
                                     (REVIEWER, PRODUCT, RATING, TIME)),
               plain("user", "item", "rating", "time"))),
        (Table(("meta*.json",), JsonLines(loose=True),
               (Field("item", ("asin",), True), Field("title", ("title",)),
                Field("text", ("brand", "categories", "description"), joint=PARAGRAPHS)),
               lacks=("reviewerID", "also_buy", "main_cat", "feature")),),
    ),
    Layout(
        "amazon-2018", "Amazon reviews of 2018",
        (Table(JSON, JsonLines(), REVIEWS, also=("verified",)),
         Table(("*.csv",), Delimited(",", ("item", "user", "rating", "time"),
                                     (PRODUCT, REVIEWER, RATING, TIME)),
               plain("item", "user", "rating", "time"))),
        (Table(("meta*.json",), JsonLines(loose=True),
               (Field("item", ("asin",), True), Field("title", ("title",)),
                Field("text", ("brand", "category", "feature", "description"), joint=PARAGRAPHS)),
               lacks=("reviewerID", "categories")),),
    ),
    Layout(
        "amazon-2023", "Amazon reviews of 2023",
        (Table(("*.jsonl", "*.json"), JsonLines(), REVIEWS_2023),
         Table(("*.csv",), Delimited(",", quote='"'), REVIEWS_2023)),
        (Table(("meta*.jsonl", "meta*.json"), JsonLines(),
               (Field("item", ("parent_asin",), True), Field("title", ("title",)),
                Field("text", ("store", "categories", "features", "description"),
                      joint=PARAGRAPHS)),
               lacks=("user_id",)),),
    ),
)
# fmt: on
