"""What models share that read a history as one sequence a modality, ids included, each with its own Transformer.

e_m = W_m x_m + b_m + p_l (ids: a table), p one position table for all;  z^m = Transformer_m(Dropout(norm_m(e~_m)))
s(u,i) = sum_m <z^m at the last item, e_m of i without position>
What becomes of e_m on its way to e~_m, among modalities or with time, is a model's own.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar, final

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from modalmix.data.catalog import Catalog
from modalmix.data.split import TrainData
from modalmix.models.contract.categories import Categories
from modalmix.models.contract.content import chosen_modalities
from modalmix.models.contract.content_sequential import SequenceContentConfig, content_features, content_vectors
from modalmix.models.contract.initial import initial_items
from modalmix.models.contract.sequential import Items, SequentialRecommender
from modalmix.nn.category import Labels
from modalmix.nn.dropout import FastDropout
from modalmix.nn.linear import FeatureLinear
from modalmix.nn.packing import Packing
from modalmix.nn.transformer import CausalTransformer, Norm

ID = "id"


class StreamConfig(SequenceContentConfig):
    """Settings of a model that reads one sequence a modality. The preset "paper" is what such models publish."""

    category_column: str = "categories"
    """Column of the items table with each item's category, or list of categories."""

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "paper": {
            "dim": 64,
            "init_std": 0.02,
            "id_init": "normal",
            "whiten": 0,
            "training": "prefixes",
            "lr": 1e-3,
            "lr_decay": "none",
            "weight_decay": 0.0,
            "dropout": 0.5,
            "attention_dropout": 0.5,
            "standardize": False,
            "epochs": 100,
            "patience": 10,
            "eval_every": 1,
        }
    }


@final
@dataclass(frozen=True)
class About:
    """What is known of a catalogue's items beside their vectors: `Items.beside`."""

    present: Bool[Tensor, "items modalities"]
    """Who has what, in the order of `StreamRecommender.streams`; everybody has an id."""
    labels: Labels | None
    """The categories; None for a catalogue that extends the training one where no state depends on them."""


C = TypeVar("C", bound=StreamConfig)


class StreamRecommender(SequentialRecommender[C]):
    """An id table, a linear map a modality and a position table; norm, dropout and Transformer a sequence.

    A model says how a history becomes e~ and gives that to `states_of`; its constructor calls `add_encoders` where its
    Transformers are to be drawn.
    """

    reads_categories: ClassVar[bool] = False
    """Whether states depend on the categories of items: those of added items are then read too."""

    label_offsets: Int[Tensor, " items_plus_one"]
    label_values: Int[Tensor, " labels"]

    def __init__(self, config: C, data: TrainData) -> None:
        """Raises ModelError for an unknown modality, and for one that no warm item has."""
        super().__init__(config, data)
        self.modalities = chosen_modalities(config.modalities, data.catalog)
        self.streams = (ID, *self.modalities)
        start = initial_items(data, config.dim, config.init_std, config.id_init, config.init_modalities)
        self.table = nn.Parameter(start)
        self.positions = nn.Parameter(torch.randn(config.length, config.dim) * 0.02)
        features = content_features(config, data)
        self.features = nn.ModuleList(features)
        self.project = nn.ModuleList(FeatureLinear(one.width, config.dim) for one in features)
        self.categories = Categories.of(data.catalog, config.category_column)
        self.register_buffer("label_offsets", self.categories.items.offsets, persistent=False)
        self.register_buffer("label_values", self.categories.items.labels, persistent=False)

    def add_encoders(self, norm: Callable[[int], nn.Module], inner: Norm = "layer") -> None:
        """norm_m, the dropout and Transformer_m; `norm` makes one of a width, `inner` stands in the Transformers.

        Not part of the constructor above: parameters are drawn and stand in the order in which a history meets them.
        """
        config = self.config
        self.norms = nn.ModuleList(norm(config.dim) for _ in self.streams)
        self.dropout = FastDropout(config.dropout)
        parts = (config.dim, config.layers, config.heads, config.hidden, config.dropout, config.attention_dropout)
        self.encoders = nn.ModuleList(CausalTransformer(*parts, norm=inner) for _ in self.streams)

    def start_maps(self, std: float) -> None:
        """N(0, std) for the weights of every linear map and of tables of buckets, biases 0, as such models publish."""
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                nn.init.normal_(module.weight, std=std)
            if isinstance(module, nn.Linear) and module.bias is not None:
                nn.init.zeros_(module.bias)

    # items

    def items(self, catalog: Catalog) -> Items:
        """[e_1 || .. || e_M] without position, on both sides; `About` beside the inputs. Absent: zeros.

        A cold or new item has the mean id vector of the warm ones.
        """
        said, present = content_vectors(self.features, self.project, catalog, self.train_catalog)
        vectors = torch.cat([self.known(self.table, catalog), *said], dim=1)
        present = torch.cat([torch.ones_like(present[:, :1]), present], dim=1)
        asked = self.reads_categories or catalog is self.train_catalog
        return Items(vectors, vectors, About(present, self.labels(catalog) if asked else None))

    def labels(self, catalog: Catalog) -> Labels:
        """The categories of a catalogue's items, as far as the training one has them."""
        if catalog is self.train_catalog:
            return Labels(self.label_offsets, self.label_values)
        found = Categories.of(catalog, self.config.category_column, self.categories.names).items
        return Labels(*(one.to(self.table.device) for one in found))

    # sequences

    def placed(
        self, vectors: Float[Tensor, "positions wide"], place: Int[Tensor, " positions"]
    ) -> Float[Tensor, "modalities positions dim"]:
        """e of each modality: the vectors of items, with the position table at their places in a sequence."""
        return vectors.view(len(vectors), len(self.streams), -1).transpose(0, 1) + self.positions.index_select(0, place)

    def encode(
        self, stream: int, x: Float[Tensor, "positions dim"], packing: Packing
    ) -> Float[Tensor, "positions dim"]:
        """z of one modality's sequences at every position, from e~."""
        return torch.as_tensor(self.encoders[stream](self.dropout(self.norms[stream](x)), packing))

    def encode_last(
        self, stream: int, x: Float[Tensor, "positions dim"], packing: Packing
    ) -> Float[Tensor, "batch dim"]:
        """z of one modality's sequences at their last positions. None is empty."""
        return self.encode(stream, x, packing).index_select(0, packing.lengths.cumsum(0) - 1)

    def states_of(
        self, x: Float[Tensor, "modalities positions dim"], packing: Packing
    ) -> Float[Tensor, "batch length wide"]:
        """[z^1 || .. || z^M] at every position, from e~; zeros at padding."""
        return packing.unpack(torch.cat([self.encode(k, one, packing) for k, one in enumerate(x)], dim=1))
