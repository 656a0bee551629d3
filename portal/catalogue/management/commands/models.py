"""``manage.py models``: the catalogue, from the console."""

from __future__ import annotations

from argparse import ArgumentParser
from decimal import Decimal, InvalidOperation
from typing import IO, Any, cast

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, OutputWrapper
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Column, Table

from portal.catalogue import lighter, preparation
from portal.catalogue.models import CatalogueModel
from portal.catalogue.selectors import ModelUnavailable, every_model, get
from portal.catalogue.services import (
    CatalogueError,
    add_model,
    place,
    set_price,
    sync_builtin,
)

COLUMNS = ("State", "Placement", "Kind", "Parameters", "Context", "Licence")
PLACEMENTS = CatalogueModel.Placement.values


class Command(BaseCommand):
    help = "List, add, prepare, quantize, check, place, price and remove models."
    requires_system_checks = ()

    def add_arguments(self, parser: ArgumentParser) -> None:
        verbs = parser.add_subparsers(dest="verb", required=True)
        verbs.add_parser("list", help="show the catalogue")
        add = verbs.add_parser("add", help="make an entry")
        add.add_argument("id")
        add.add_argument("--source", required=True, help="hub:ORG/NAME[@REV] | /FOLDER | /X.gguf")
        add.add_argument("--kind", required=True, help="base | instruct | embedding")
        for option in ("--name", "--licence", "--licence-url"):
            add.add_argument(option, default="")
        prepare = verbs.add_parser("prepare", help="fetch and convert the weights")
        prepare.add_argument("id")
        prepare.add_argument("--force", action="store_true", help="make it again")
        light = verbs.add_parser("quantize", help="make and measure a lighter version")
        light.add_argument("id")
        light.add_argument("--format", required=True, choices=lighter.FORMATS)
        light.add_argument("--id", dest="new", default="", help="its name; else ID-FORMAT")
        verbs.add_parser("check", help="read the files again").add_argument("id")
        put = verbs.add_parser("place", help="say when workers serve it")
        put.add_argument("id")
        put.add_argument("placement", choices=PLACEMENTS)
        price = verbs.add_parser("price", help="say what a million tokens cost, for showing costs")
        price.add_argument("id")
        price.add_argument("--input", default="", metavar="PRICE", help="of the prompt")
        price.add_argument("--output", default="", metavar="PRICE", help="of what is generated")
        verbs.add_parser("remove", help="take it out, files too").add_argument("id")

    def handle(self, *, verb: str, **options: Any) -> None:
        sync_builtin()
        try:
            getattr(self, f"_{verb}")(options)
        except (CatalogueError, ModelUnavailable) as error:
            raise CommandError(str(error)) from None

    def _list(self, options: dict[str, Any]) -> None:
        table = Table(Column("Model", no_wrap=True), *COLUMNS)
        for model in every_model():
            state = model.state + (f": {model.error}" if model.error else "")
            parameters, context = f"{model.parameters / 1e6:.0f} M", str(model.context_length)
            about = (model.kind, parameters, context, model.licence)
            table.add_row(model.id, state, model.placement, *about)
        Console(file=_stream(self.stdout)).print(table)

    def _add(self, options: dict[str, Any]) -> None:
        names = ("source", "kind", "name", "licence", "licence_url")
        model = add_model(model_id=options["id"], **{name: options[name] for name in names})
        self.stdout.write(f"Added {model.id}. Next: manage.py models prepare {model.id}")

    def _prepare(self, options: dict[str, Any]) -> None:
        model = get(options["id"])
        self.stdout.write(f"{model.name}: {model.licence} {model.licence_url}".rstrip())
        with self._bar() as bar:
            task = bar.add_task(model.id, total=1.0)
            model = preparation.prepare(
                model_id=model.id,
                force=options["force"],
                progress=lambda done, text: bar.update(task, completed=done, description=text),
            )
        where = f" at {model.commit}" if model.commit else ""
        self.stdout.write(f"{model.id} is ready: {model.bytes / 1e6:.0f} MB, {model.digest}{where}")

    def _quantize(self, options: dict[str, Any]) -> None:
        model = lighter.enter(
            origin_id=options["id"], target=options["format"], model_id=options["new"]
        )
        with self._bar() as bar:
            task = bar.add_task(model.id, total=1.0)
            model = lighter.make(
                model_id=model.id,
                progress=lambda done, text: bar.update(task, completed=done, description=text),
            )
        speed, change = model.figures["speed"], model.perplexity_change
        bits = model.figures.get("bits")
        self.stdout.write(
            f"{model.id} is ready: {model.bytes / 1e6:.0f} MB on the disk "
            f"({model.size_change:+.0f} %)"
            + (f", {bits} bits a weight in its layers" if bits else "")
            + f", {model.figures['memory'] / 1e6:.0f} MB of memory, "
            + ", ".join(f"{rate} tokens/s at batch {batch}" for batch, rate in speed.items())
            + "; perplexity "
            + ", ".join(f"{name} {value:+.2f} %" for name, value in change.items())
            + f". Next: manage.py models place {model.id} on_demand"
        )

    def _check(self, options: dict[str, Any]) -> None:
        with self._bar() as bar:
            task = bar.add_task(options["id"], total=1.0)
            model = preparation.check(
                model_id=options["id"],
                progress=lambda done, text: bar.update(task, completed=done, description=text),
            )
        self.stdout.write(f"{model.id} is as it was prepared.")

    def _place(self, options: dict[str, Any]) -> None:
        model = get(options["id"])
        place(model=model, placement=options["placement"])
        self.stdout.write(f"{model.id} is placed: {model.placement}.")

    def _price(self, options: dict[str, Any]) -> None:
        model = get(options["id"])
        prices = [_number(options[name], f"--{name}") for name in ("input", "output")]
        set_price(model=model, price_input=prices[0], price_output=prices[1])
        said = [("none" if price is None else f"{price:f}") for price in prices]
        currency = settings.LLMASOS.currency
        self.stdout.write(f"{model.id}: {said[0]} in, {said[1]} out, {currency} a million tokens.")

    def _remove(self, options: dict[str, Any]) -> None:
        model = get(options["id"])
        lighter.discard(model=model)
        self.stdout.write(f"Removed {model.id}.")

    def _bar(self) -> Progress:
        columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
        return Progress(*columns, console=Console(file=_stream(self.stderr)))


def _number(text: str, option: str) -> Decimal | None:
    """Empty: no price."""
    try:
        return Decimal(text) if text else None
    except InvalidOperation:
        raise CommandError(f"{option} takes a number such as 0.25, not {text!r}.") from None


def _stream(wrapper: OutputWrapper) -> IO[str]:
    """What Django's wrapper writes to: rich counts its own newlines."""
    return cast("IO[str]", wrapper._out)
