"""A job for an encoder is a job like any other: reserved, queued, logged, settled, let go."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from django.conf import settings

from inference_workers.contract import Embedded, Finished, Started, Usage
from portal.catalogue.models import CatalogueModel
from portal.catalogue.selectors import get, text_models, visible_models
from portal.catalogue.services import begin_preparing, finish_preparing, place, sync_builtin
from portal.jobs import archive, dispatch, links, retention, selectors, texts
from portal.jobs.errors import InvalidRequest
from portal.jobs.inputs import EmbeddingInput, TextInput
from portal.jobs.keeper import VECTORS_SECONDS, record
from portal.jobs.models import Job
from portal.usage.models import Reservation, UsageHour
from portal.usage.services import OverBudget, set_budget
from tests.portal.jobs.conftest import NAME, Worker
from tests.small_encoder import LONGEST, SIZE, VOCABULARY, letters

ENCODER = "all-minilm-l6-v2"
Make = Callable[..., Job]


@pytest.fixture
def encoder(echo: CatalogueModel, echo_manifest: dict[str, Any]) -> CatalogueModel:
    """A prepared encoder, as far as the portal looks at one."""
    manifest = echo_manifest | {
        "id": ENCODER, "kind": "embedding", "family": "bert", "dimensions": SIZE,
        "context_length": LONGEST, "vocab_size": VOCABULARY, "bos_token_id": None,
    }  # fmt: skip
    folder = settings.LLMASOS.data / "models" / ENCODER
    folder.mkdir(parents=True, exist_ok=True)
    letters().save(str(folder / "tokenizer.json"))
    (folder / "manifest.json").write_text(json.dumps(manifest))
    sync_builtin()
    begin_preparing(model=get(ENCODER))
    finish_preparing(model=get(ENCODER), manifest=manifest)
    place(model=get(ENCODER), placement="on_demand")
    return get(ENCODER)


@pytest.fixture
def embed(make_job: Make, encoder: CatalogueModel) -> Make:
    def embed(*given: Any, **more: Any) -> Job:
        what = {"model": ENCODER, "sampling": {"max_tokens": 0}, "input": EmbeddingInput(given)}
        return make_job(**(what | more))

    return embed


def test_its_texts_are_queued_with_their_lengths(embed: Make) -> None:
    job = embed("abc", [7, 8], "d e")
    found = dispatch.describe(Job.objects.get(pk=job.pk))
    assert found.lengths == (5, 2, 4)  # two more where a text was framed
    assert len(found.input_ids) == 11
    assert found.input_ids[5:7] == (7, 8)
    assert links.queue().depth(ENCODER) == 1


def test_it_is_reserved_and_settled_by_its_prompts_tokens_alone(
    embed: Make, worker: Worker
) -> None:
    job = embed("abc", "defg")
    assert Reservation.objects.get().tokens == 11
    _answer(worker, job)
    assert record(job.pk.hex, log=links.log(), queue=links.queue())
    job.refresh_from_db()
    assert (job.state, job.prompt_tokens, job.completion_tokens) == ("finished", 11, 0)
    assert job.first_token_at is not None
    assert not Reservation.objects.exists()
    hour = UsageHour.objects.get()
    assert (hour.model, hour.prompt_tokens, hour.completion_tokens) == (ENCODER, 11, 0)


def _answer(worker: Worker, job: Job) -> None:
    worker.leases.register(NAME, model=ENCODER, slots=8)
    claim = worker.queue.claim(ENCODER, NAME)
    assert claim is not None
    worker.job, worker.seq = claim.job, claim.last_seq
    worker.write(Started(worker=NAME))
    worker.write(Embedded(texts=(1,), vectors=("AACAPw==",)))
    worker.write(Embedded(texts=(0,), vectors=("AAAAAA==",)))
    worker.write(Finished(reason="stop", usage=Usage(prompt_tokens=11)))


def test_its_log_is_kept_as_it_was_and_let_go_with_its_lengths(embed: Make, worker: Worker) -> None:
    job = embed("abc", "defg")
    _answer(worker, job)
    live = list(archive.whole(links.log(), job.pk.hex))
    record(job.pk.hex, log=links.log(), queue=links.queue())
    assert 0 < links.client().ttl(links.log().keys.log(job.pk.hex)) <= VECTORS_SECONDS
    kept = selectors.entries(Job.objects.get(pk=job.pk))
    assert [entry.event for entry in kept] == [entry.event for entry in live]
    assert retention.drop([job.pk]) == 1
    dropped = Job.objects.get(pk=job.pk)
    assert (dropped.input_ids, dropped.lengths, dropped.log) == ([], [], None)


def test_it_is_charged_to_its_teams_turn_when_it_is_claimed(embed: Make, worker: Worker) -> None:
    first = embed("a" * 60)
    embed("b")
    _claim(worker)
    state = links.queue().state(first.pk.hex)
    assert state is not None
    assert (state.state, state.tokens) == ("running", 0)


def _claim(worker: Worker) -> None:
    worker.leases.register(NAME, model=ENCODER, slots=8)
    assert worker.queue.claim(ENCODER, NAME) is not None


def test_over_budget_it_is_refused(embed: Make, team: Any) -> None:
    set_budget(team=team, monthly_tokens=10)
    with pytest.raises(OverBudget):
        embed("abc", "defg")
    assert embed("abc", "d").pk


@pytest.mark.parametrize(
    ("given", "field", "said"),
    [
        ((), "input", "at least one"),
        (("a", ""), "input[1]", "empty"),
        (("a", []), "input[1]", "empty"),
        (("a",) * 2049, "input", "2,049 texts; at most 2,048"),
        (("a", "b" * 63), "input[1]", f"65 tokens; {ENCODER} reads at most 64"),
        (("a", [5] * 65), "input[1]", "65 tokens"),
        (("a" * 70, "b"), "input[0]", "72 tokens"),
        (([5, VOCABULARY],), "input[0]", "no token of this model"),
        (("a\0",), "input[0]", "NUL"),
        (("a\ud800",), "input[0]", "surrogate"),
        ((" " * 2_000_001,), "input", "2,000,001 characters"),
    ],
)
def test_a_bad_text_is_refused_by_its_number(
    embed: Make, given: tuple[Any, ...], field: str, said: str
) -> None:
    with pytest.raises(InvalidRequest, match=said) as caught:
        embed(*given)
    assert caught.value.field == field
    assert not Job.objects.exists()


def test_more_tokens_than_a_request_may_have_are_refused(
    embed: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(texts, "MOST_TOKENS", 20)
    with pytest.raises(InvalidRequest, match="more than 20 tokens"):
        embed("abcdef", "abcdef", "abcdef")
    embed("abcdef", "abcdef")


def test_only_its_own_length_of_vectors_can_be_asked_for(embed: Make) -> None:
    for dimensions in (1, SIZE - 1, 10**6):
        with pytest.raises(InvalidRequest, match=f"{SIZE} numbers") as caught:
            embed(input=EmbeddingInput(["a"], dimensions=dimensions))
        assert caught.value.field == "dimensions"
    assert embed(input=EmbeddingInput(["a"], dimensions=SIZE)).pk


def test_neither_kind_of_model_does_the_others_work(embed: Make, make_job: Make) -> None:
    with pytest.raises(InvalidRequest, match="/v1/embeddings") as caught:
        embed(input=TextInput("a"))
    assert (caught.value.field, caught.value.code) == ("model", "model_not_supported")
    with pytest.raises(InvalidRequest, match=f"Models that do: {ENCODER}"):
        make_job(input=EmbeddingInput(["a"]), sampling={"max_tokens": 0})


def test_who_can_be_asked_to_go_on_leaves_encoders_out(encoder: CatalogueModel) -> None:
    assert encoder in visible_models()
    assert [model.pk for model in text_models()] == ["echo"]
    assert encoder.dimensions == SIZE


def test_where_no_encoder_is_ready_the_refusal_says_how_to_get_one(make_job: Make) -> None:
    with pytest.raises(InvalidRequest, match="models prepare all-minilm-l6-v2"):
        make_job(input=EmbeddingInput(["a"]), sampling={"max_tokens": 0})
