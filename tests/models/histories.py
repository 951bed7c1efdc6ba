"""Training data from a matrix of who met what, and how models that read histories score them."""

import numpy as np
import torch

from modalmix.data.catalog import Catalog
from modalmix.data.ids import IdMap
from modalmix.data.interactions import Interactions
from modalmix.data.split import TrainData
from modalmix.models.contract import Query, Scorer


def train_data(met: np.ndarray) -> TrainData:
    """One event wherever `met` [users, items] is not zero; no content."""
    user, item = (rows.astype(np.int32) for rows in np.nonzero(met))
    users, items = met.shape
    catalog = Catalog(IdMap(np.arange(items)))
    return TrainData(IdMap(np.arange(users), "user"), catalog, Interactions(user, item, users, items))


def scores_a_history_like_its_user(scorer: Scorer, data: TrainData) -> None:
    """In a history a repeat counts once, padding not at all."""
    met = data.interactions.csr[3].indices
    history = torch.tensor([[*met, met[0], -1]])
    torch.testing.assert_close(scorer(Query(history=history)), scorer(Query(users=torch.tensor([3]))))
