"""The models of requests and responses; OpenAPI shows the same to clients.

Request models are created from the limits of a server, so that OpenAPI shows the limits too.
"""

from typing import Annotated, Any, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, StrictInt, StrictStr, create_model

from efficientids_flax.serve.answers import SET_NAME
from efficientids_flax.serve.limits import Limits

ItemId = Annotated[StrictInt | StrictStr, Field(description="an item: its id in the catalogue; "
                   "where the model has no ids, its number")]  # fmt: skip
SetName = Annotated[str, Field(pattern=f"^{SET_NAME}$")]
STRICT = ConfigDict(extra="forbid", strict=True)


class Strict(BaseModel):
    """Part of a request; unknown fields are an error."""

    model_config = STRICT


class Result(BaseModel):
    """The answer to one history.

    Attributes:
        items: numbers of the items in the model, best first; of candidates as they were given.
        item_ids: their ids in the catalogue, where it has some.
        titles: for people, where the catalogue has some.
        log_probability: of the item coming next, natural logarithm.
    """

    items: list[int]
    item_ids: list[int | str] | None = None
    titles: list[str | None] | None = None
    log_probability: list[float | None]


class Results(BaseModel):
    """The answers to the histories of a request, in order.

    Attributes:
        results: one a history.
        generation: of the export that answered: 1, and one more after each reload.
    """

    results: list[Result]
    generation: int


class About(BaseModel):
    """What is served.

    Attributes:
        generation: see `Results`.
        items: how many there are.
        named: whether items have ids or titles of a catalogue.
        max_history: ids of a history that are used, the last ones.
        limits: of requests.
    """

    generation: int
    items: int
    named: bool
    max_history: int
    limits: dict[str, float]


class Sets(BaseModel):
    """The named sets: how many items each has."""

    sets: dict[str, int]


class Problem(BaseModel):
    """A problem document (RFC 9457)."""

    type: str
    title: str
    status: int
    detail: str
    errors: list[dict[str, str]] = Field(default_factory=list)
    more_errors: int = 0
    request_id: str = ""


class Requests(NamedTuple):
    """The models of requests."""

    recommend: Any
    score: Any
    put_set: Any


def requests_for(limits: Limits) -> Requests:
    """Create the request models of a server with these limits."""
    some: Any = Annotated[list[ItemId], Field(max_length=limits.max_length)]
    left_out = Annotated[list[ItemId], Field(max_length=limits.max_exclude)]
    numbers: Any = Annotated[list[Annotated[int, Field(ge=0)]], Field(max_length=limits.max_length)]
    marks: Any = Annotated[
        list[Annotated[int, Field(ge=0, le=1)]], Field(max_length=limits.max_length)
    ]
    history = {
        "items": (some | None, Field(None, description="items, oldest first")),
        "ids": (numbers | None, Field(None, description="in place of items: words and items by "
                "their numbers in the model, with item_mask")),
        "item_mask": (marks | None, Field(None, description="1 where ids has an item, 0 where "
                      "it has a word")),
    }  # fmt: skip
    leaving = {
        **history,
        "exclude": (left_out, Field([], description="items to leave out for this history")),
    }
    candidates = (
        Annotated[list[ItemId], Field(min_length=1, max_length=limits.max_candidates)],
        Field(description="items to score"),
    )
    many = Field(min_length=1, max_length=limits.max_histories)
    create: Any = create_model

    def model(name: str, doc: str, fields: dict[str, Any]) -> Any:
        return create(name, __base__=Strict, __doc__=doc, **fields)

    asking = model("History", "One history, of items or of words and items.", leaving)
    scored = model("ScoredHistory", "One history, of items or of words and items.", history)
    return Requests(
        model("Recommend", "Histories whose next items are asked for.", {
            "histories": (Annotated[list[asking], many], ...),
            "k": (Annotated[int, Field(ge=1, le=limits.max_k)],
                  Field(10, description="how many items")),
            "exclude_seen": (bool, Field(False, description="leave out the history's items")),
            "exclude": (left_out, Field([], description="items to leave out for all")),
            "allowed": (list[SetName], Field([], description="sets: an item has to be in each")),
            "exclude_sets": (list[SetName], Field([], description="sets: an item of one is left "
                             "out")),
        }),
        model("Score", "Histories, and items whose log-probabilities are asked for.", {
            "histories": (Annotated[list[scored], many], ...), "candidates": candidates,
        }),
        model("PutSet", "The items of a set.", {
            "items": (list[ItemId], Field(description="all of its items")),
        }),
    )  # fmt: skip
