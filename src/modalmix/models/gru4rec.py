"""GRU4Rec: a recurrent network over what somebody met (Hidasi et al. 2016), trained with the full softmax.

h_t = GRU(e(i_t), h_(t-1)),  S_t = W h_t + b,  s(u,i) = <S_n, e(i)>
L = mean over all positions of -log softmax(<S_t, e(.)>)[i_(t+1)]

One item table on both sides, whole histories instead of session-parallel mini-batches, the full softmax instead of
negatives from the batch: the form in which it is a baseline today.
"""

from typing import final

from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from modalmix.data.catalog import Catalog
from modalmix.data.split import TrainData
from modalmix.models.contract.initial import initial_items
from modalmix.models.contract.sequential import Items, SequentialConfig, SequentialRecommender
from modalmix.nn.dropout import FastDropout


class GRU4RecConfig(SequentialConfig):
    """Settings of GRU4Rec."""

    layers: int = Field(1, ge=1)
    """GRU layers."""
    hidden: int | None = Field(None, ge=1)
    """Length of the GRU's state; twice `dim` without it."""


@final
class GRU4Rec(SequentialRecommender[GRU4RecConfig]):
    """One item table, a GRU, a linear map back to the length of item vectors."""

    def __init__(self, config: GRU4RecConfig, data: TrainData) -> None:
        super().__init__(config, data)
        start = initial_items(data, config.dim, config.init_std, config.id_init, config.init_modalities)
        self.table = nn.Parameter(start)
        self.dropout = FastDropout(config.dropout)
        hidden = config.hidden or 2 * config.dim
        self.gru = nn.GRU(config.dim, hidden, config.layers, batch_first=True)
        self.output = nn.Linear(hidden, config.dim)
        for name, weight in self.gru.named_parameters():
            nn.init.xavier_uniform_(weight) if "weight" in name else nn.init.zeros_(weight)

    def items(self, catalog: Catalog) -> Items:
        """The table, on both sides; a cold or new item has the mean vector of the warm ones."""
        table = self.known(self.table, catalog)
        return Items(table, table)

    def states(self, history: Int[Tensor, "batch length"], items: Items) -> Float[Tensor, "batch length dim"]:
        """S; padding holds what is never read."""
        x = self.dropout(items.inputs.index_select(0, history.clamp(min=0).flatten()).view(*history.shape, -1))
        lengths = (history >= 0).sum(dim=1).cpu()
        packed, _ = self.gru(pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False))
        hidden, _ = pad_packed_sequence(packed, batch_first=True, total_length=history.shape[1])
        return self.output(self.dropout(hidden))
