"""MAMEX: experts per modality and a gate between modalities turn content into item vectors; cold items are at home."""

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any, ClassVar, Literal, Self, final

import numpy as np
import pydantic
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from pydantic import Field
from scipy.sparse import csr_matrix
from torch import Tensor, nn

from modalmix.data.catalog import Catalog
from modalmix.data.split import TrainData
from modalmix.errors import TrainError
from modalmix.models.contract import DotScorer, Query, TeacherConfig, Triples
from modalmix.models.contract.content import Content, ContentConfig, ContentRecommender
from modalmix.models.contract.histories import history_rows
from modalmix.models.contract.profiles import Profiles, choose_weight, mean_of_items
from modalmix.models.contract.teacher import best_teacher, draw_folds
from modalmix.nn.als import fold_in_with_new_items
from modalmix.nn.encoding import Encoding, auxiliary_terms, fuse_modalities
from modalmix.nn.experts import Mixture, SparseExperts
from modalmix.nn.gates import FusionGate, mask_absent
from modalmix.nn.missing import drop_modalities, follow_mean
from modalmix.nn.rows import zero_cold
from modalmix.nn.taught import TaughtMixture

_FOLDS = 5  # strengths are chosen on so many where the gates ask for none


class MamexConfig(ContentConfig):
    """Settings of MAMEX. Preset `paper` is the published recipe; select its model by NDCG@10 of the cold pool."""

    learn: Literal["taught", "jointly"] = "taught"
    """taught: experts regress the factors of a collaborative teacher, the gates learn on items that the experts have
    not seen; jointly: experts, gates and users by the ranking loss alone, as published."""
    dim: int = Field(128, ge=1)
    """Learnt jointly: length of user and item vectors. Taught: `teacher.dim` counts."""
    lr: float = Field(1e-2, gt=0)
    """Learning rate of Adam."""
    batch_size: int = Field(1024, ge=1)
    """Items (taught) or interactions (jointly) a step."""
    epochs: int = Field(60, ge=1)
    """Most epochs."""
    patience: int = Field(20, ge=1)
    """Epochs without a better validation score before training stops."""
    eval_every: int = Field(5, ge=1)
    """Epochs between validations."""
    loss: Literal["bpr", "softmax"] = "bpr"
    """Learnt jointly: each positive against one drawn negative, or against all candidate items (4 times the work)."""
    experts: int = Field(2, ge=1)
    """Experts a modality. Taught: kernels, from wide to narrow; jointly: linear maps."""
    top_k: int = Field(2, ge=1)
    """Experts that see an item."""
    expert_hidden: int = Field(0, ge=0)
    """Learnt jointly: hidden width of an expert (Linear-GELU-Linear); 0: an expert is one Linear."""
    gate: Literal["learned", "mean"] = "learned"
    """How modalities are weighed: by the fusion gate, or evenly."""
    gate_hidden: int = Field(32, ge=1)
    """Taught: hidden width of the gates."""
    dropout: float = Field(0.1, ge=0, lt=1)
    """Dropout inside the gate."""
    noise: bool = False
    """Learnt jointly: noisy top-k gates in training (Shazeer et al. 2017)."""
    load: float = Field(0.0, ge=0)
    """Weight of the load loss of each modality's experts (Switch Transformer, Fedus et al. 2021)."""
    balance: float = Field(0.0, ge=0)
    """Weight of the balance of each modality's experts."""
    fusion_balance: float = Field(0.0, ge=0)
    """Weight of the balance of the modalities."""
    align: float = Field(0.0, ge=0)
    """Weight of the alignment of an item's vector with its modality vectors."""
    reg: float = Field(1e-6, ge=0)
    """Learnt jointly: weight of the L2 penalty on the vectors of a batch."""
    aux_scope: Literal["batch", "all"] = "batch"
    """Learnt jointly: items under the balance and alignment terms: those the batch needs, or all, cold ones too."""
    missing: Literal["mask", "zero", "mean", "learned"] = "zero"
    """A missing modality: mask: has no say; zero: is a vector of zeros (taught) or what the experts say of zeros
    (jointly, as published); mean: the mean vector of the items that have it; learned: a learnt vector."""
    modality_dropout: float = Field(0.5, ge=0, lt=1)
    """Chance that training hides a modality of an item, never all of them; not with missing="zero" jointly."""
    teacher: TeacherConfig = TeacherConfig()
    """Taught: the collaborative teacher."""
    teacher_regs: tuple[float, ...] = (10.0, 30.0, 100.0)
    """Taught: strengths of the teacher's regularisation to choose from, on held-out train events; empty: as given."""
    strengths: tuple[float, ...] = (0.1, 0.3, 1.0, 3.0, 10.0)
    """Taught: strengths of an expert's regularisation to choose from, on held-out folds."""
    landmarks: int = Field(1500, ge=1)
    """Taught: items that an expert's kernel is spanned by."""
    folds: int = Field(5, ge=0)
    """Taught: parts of the warm items; the gates see what experts fitted on the other parts say of an item, as if it
    were cold. 0: the gates see what experts say of items they were fitted on; strengths and the weight of profiles
    are chosen on five folds even so."""
    profiles: bool = True
    """Taught: whether cold items are also compared with the content of the user's own items."""
    content_of_warm: float = Field(0.3, ge=0)
    """Taught: how much of its content vector a warm item adds to its factor."""
    components: int = Field(64, ge=1)
    """Taught: principal components of a modality in a profile, at most."""

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "joint": {
            "learn": "jointly",
            "experts": 4,
            "modality_dropout": 0.0,
            "balance": 1.0,
            "fusion_balance": 1.0,
            "align": 1.0,
            "lr": 2e-3,
            "batch_size": 2048,
            "epochs": 300,
            "patience": 10,
            "eval_every": 1,
        },
        "paper": {
            "learn": "jointly",
            "experts": 4,
            "modality_dropout": 0.0,
            "standardize": False,
            "loss": "bpr",
            "negatives": "all",
            "balance": 1.0,
            "fusion_balance": 1.0,
            "align": 1.0,
            "aux_scope": "all",
            "missing": "zero",
            "weight_decay": 0.0,
            "lr": 1e-3,
            "batch_size": 2048,
            "epochs": 1000,
            "eval_every": 10,
            "patience": 200,
            "seed": 2025,
        },
    }
    ablations: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "no-gate": {"gate": "mean"},
        "no-experts": {"experts": 1, "top_k": 1},
        "no-balance": {"balance": 0.0, "fusion_balance": 0.0},
        "no-alignment": {"align": 0.0},
        "no-folds": {"folds": 0},
        "no-profiles": {"profiles": False},
    }

    def useful_ablations(self) -> Mapping[str, Mapping[str, Any]]:
        """Jointly there are neither folds nor profiles to leave out."""
        taught_only = () if self.learn == "taught" else ("no-folds", "no-profiles")
        return {name: settings for name, settings in self.ablations.items() if name not in taught_only}

    @pydantic.model_validator(mode="after")
    def _possible(self) -> Self:
        if self.top_k > self.experts:
            raise ValueError(f"top_k at most experts ({self.experts}), not {self.top_k}")
        if self.folds == 1:
            raise ValueError("folds 0, or 2 and more: one fold leaves nothing to learn from")
        if not self.strengths or min(self.strengths) <= 0 or min(self.teacher_regs, default=0.0) < 0:
            raise ValueError("strengths greater than 0, at least one; teacher_regs 0 or greater")
        if self.modality_dropout and self.missing == "zero" and self.learn == "jointly":
            raise ValueError("modality_dropout needs missing=mask: a hidden modality is a missing one")
        return self


@final
class Mamex(ContentRecommender[MamexConfig]):
    """Multi-modal Adaptive Mixture of Experts for Cold-start Recommendation (Nguyen et al., CIKM 2025, 2508.08042).

    h_m = sum of the top-k experts of modality m; h = sum_m pi_m h_m; score = <e_u, h_i>.
    Jointly (published): linear experts (SparseExperts), gate on [h_1; ...; h_M] (FusionGate),
    L = L_rank + reg L_reg + align L_align + balance sum_m L_imp(m) + fusion_balance L_fus.
    Taught (ours): e_u and the targets V_i are a teacher's factors; experts are kernel ridges in closed form; both gates
    are an EvidenceGate that minimises sum_i sqrt(n_i) |h_i - V_i|^2 over warm items i, with n_i train events,
    where h_i is made of what experts say that were fitted without i's fold.
    """

    teacher_users: Float[Tensor, "users dim"]
    teacher_items: Float[Tensor, "items dim"]
    popularity: Float[Tensor, " items"]
    teacher_reg: Float[Tensor, ""]
    user_profiles: Float[Tensor, "users components"]
    profile_weight: Float[Tensor, ""]
    learnable: Int[Tensor, " learnable"]
    unseen: Float[Tensor, "items modalities experts dim"]
    said: Float[Tensor, "items modalities experts dim"]
    importance: Float[Tensor, " items"]

    def __init__(self, config: MamexConfig, data: TrainData) -> None:
        super().__init__(config, data)
        self.taught, self.even = config.learn == "taught", config.gate == "mean"
        n, dim = len(self.modalities), config.teacher.dim if self.taught else config.dim
        if self.taught:
            del self.users  # they are the teacher's
            self._make_taught(data)
        else:
            self.experts = nn.ModuleList(
                SparseExperts(features, dim, config.experts, config.top_k, config.expert_hidden, config.noise)
                for features in self.dims
            )
            self.fusion = FusionGate(n, dim, config.dropout)
        self.typical: Tensor | None
        self.register_buffer("typical", torch.zeros(n, dim) if config.missing == "mean" else None)
        if config.missing == "learned":
            self.typical = nn.Parameter(torch.zeros(n, dim))

    def encode(self, content: Content, rows: Int[Tensor, " rows"] | None = None) -> Encoding:
        """Content of the rows (all without `rows`) through experts and fusion; a row without content gets zeros."""
        if self.taught:
            return self.weigh(self.say(content, rows), content.present if rows is None else content.present[rows])
        has = self._shown(content.present if rows is None else content.present[rows])
        present = self._with_a_say(has)
        mixtures = [
            experts(x, rows, here)
            for experts, x, here in zip(self.experts, content.features, present.unbind(dim=1), strict=True)
        ]
        parts = self._fill(mixtures, has)
        return fuse_modalities(parts, self.fusion(parts, present), mixtures, present, even=self.even)

    def say(self, content: Content, rows: Int[Tensor, " rows"] | None) -> Float[Tensor, "rows modalities experts dim"]:
        """Taught: what each expert says of the rows. They do not change in training: of training items it is kept."""
        if len(self.said) and content.features[0] is self.train_content.features[0]:
            return self.said if rows is None else self.said[rows]
        rows = torch.arange(len(content.present), device=content.present.device) if rows is None else rows
        return self.mixture.say(content.features, self.train_content.features, content.present, rows)

    def weigh(
        self, said: Float[Tensor, "rows modalities experts dim"], has: Bool[Tensor, "rows modalities"]
    ) -> Encoding:
        """Taught: what the experts say, weighed by the gates."""
        has = self._shown(has)
        present = self._with_a_say(has)
        mixtures, logits = self.mixture(said * has[:, :, None, None], has, present)
        parts = self._fill(mixtures, has)
        return fuse_modalities(parts, mask_absent(logits, present), mixtures, present, even=self.even)

    def item_vectors(
        self, content: Content, rows: Int[Tensor, " rows"] | None
    ) -> tuple[Float[Tensor, "rows dim"], Bool[Tensor, " rows"]]:
        encoding = self.encode(content, rows)
        return encoding.vectors, encoding.present.any(dim=1)

    def loss(self, batch: Any) -> Mapping[str, Tensor]:
        """Taught: "teacher"; jointly: "bpr" or "softmax", and "reg". Then what has a weight of "align",
        "balance/<modality>", "load/<modality>" and "balance/fusion". All weighted."""
        if self.taught:
            encoding = self.weigh(self.unseen[batch], self.train_content.present[batch])
            error = (encoding.vectors - self.teacher_items[batch]).square().sum(dim=1)
            terms = {"teacher": (self.importance[batch] * error).mean()}
        else:
            triples: Triples = batch
            asked = self.asked(triples, all_items=self.config.aux_scope == "all")
            encoding = self.encode(self.train_content, asked.rows)
            terms = self.ranking_terms(triples, asked, encoding.vectors, encoding.present.any(dim=1))
        c = self.config
        weights = {"align": c.align, "balance": c.balance, "load": c.load, "fusion": c.fusion_balance}
        return terms | auxiliary_terms(encoding, self.modalities, **weights)

    def batches(self, data: TrainData, size: int, rng: np.random.Generator) -> Iterator[Any]:
        """Taught: rows of warm items with content, in random order; jointly: triples."""
        if not self.taught:
            return super().batches(data, size, rng)
        return iter(torch.from_numpy(rng.permutation(self.learnable.cpu().numpy())).split(size))

    def n_batches(self, data: TrainData, size: int) -> int:
        return -(-len(self.learnable) // size) if self.taught else super().n_batches(data, size)

    def scorer(self, catalog: Catalog) -> DotScorer:
        """Inner products. Taught: a warm item is V_i + c h_i (c: `content_of_warm`), a cold one h_i and its place."""
        if not self.taught:
            return super().scorer(catalog)
        self.check_extends(catalog)
        with self.frozen():
            vectors, has_content = self.catalog_vectors(catalog)
            warm = F.pad(self.warm, (0, len(catalog) - self.n_items)).unsqueeze(1)
            factors = torch.where(warm, zero_cold(self.teacher_items, self.warm, len(catalog)), vectors)
            vectors = factors + torch.where(warm, self.config.content_of_warm * vectors, 0.0)
            places = self.profiles.places(self.read(catalog))
            beside = torch.where(warm, 0.0, self.profile_weight * places)
            users = torch.cat([self.teacher_users, self.user_profiles], dim=1)
        bias = zero_cold(self.popularity, self.warm, len(catalog))
        return DotScorer(
            users,
            torch.cat([vectors, beside], dim=1),
            bias,
            without_content=~has_content,
            of_history=partial(self.fold_in, factors=factors, places=places),
        )

    def fold_in(
        self,
        history: Int[Tensor, "batch length"],
        factors: Float[Tensor, "items dim"],
        places: Float[Tensor, "items components"],
    ) -> Float[Tensor, "batch wide"]:
        """Somebody new as known users are: a half step of the teacher, and the mean place of what was met.

        The factor of a cold item is h_i. Raises QueryError for an empty history.
        """
        met = history_rows(Query(history=history), csr_matrix((0, self.n_items)), len(factors))
        warm = F.pad(self.warm, (0, len(factors) - self.n_items)).cpu()
        reg, alpha = float(self.teacher_reg), self.config.teacher.alpha
        users = fold_in_with_new_items(met, factors.cpu(), warm, reg, alpha)
        return torch.cat([users, mean_of_items(met, places.cpu())], dim=1).to(factors.device)

    def routing(self, query: Query, items: Int[Tensor, " items"]) -> Mapping[str, Tensor]:
        """Gate weights of training items; the query does not matter, MAMEX routes by item.

        "modality": [items, modalities] in the order of `self.modalities`; "experts/<modality>": [items, experts].
        A row sums to 1; with missing="mask", and for an item without any content, it is zeros where content is missing.
        Taught: of warm items it says what the gates make of experts that were fitted on them.
        """
        with self.frozen():
            encoding = self.encode(self.train_content, items)
        experts = zip(self.modalities, encoding.mixtures, strict=True)
        return {"modality": encoding.weights} | {f"experts/{name}": mixture.weights for name, mixture in experts}

    def prepare(self, data: TrainData) -> None:
        """Taught: choose and fit the teacher, fit the experts on all items and without each fold, make the profiles."""
        if not self.taught:
            return
        config = self.config
        teacher = best_teacher(data.interactions, config.teacher, config.teacher_regs, config.seed)
        self.teacher_users.copy_(teacher.users)
        self.teacher_items.copy_(teacher.items)
        self.popularity.copy_(teacher.popularity)
        self.teacher_reg.fill_(teacher.config.reg)
        fold = draw_folds(self.train_items, config.folds or _FOLDS, config.seed)
        content = self.train_content
        learnable = content.present & self.warm.unsqueeze(1)
        importance = torch.from_numpy(np.sqrt(data.interactions.item_degree)).float()
        unseen = self.mixture.fit(
            content.features, learnable, teacher.items, importance, fold, config.strengths, config.seed
        )
        energy = (importance * teacher.items.square().sum(dim=1))[self.learnable].mean()
        if len(self.learnable) and float(energy) < torch.finfo(energy.dtype).tiny:
            raise TrainError(
                "the teacher's factors are all zero",
                got=f"teacher.reg {teacher.config.reg:g}",
                fix="Lower teacher.reg, or give teacher_regs to choose from.",
            )
        self.importance = importance / energy.clamp(min=torch.finfo(energy.dtype).tiny)
        self.said = self.mixture.say(content.features, content.features, content.present, torch.arange(self.n_items))
        self.unseen = unseen if config.folds else self.said
        self.mixture.standardise(self.unseen, learnable)
        if config.profiles:
            met, away = data.interactions.csr, self.warm & (fold == 0)
            self.profiles.fit(content, self.warm)
            places = self.profiles.places(content)
            self.user_profiles.copy_(mean_of_items(met, places))
            self.profile_weight.copy_(choose_weight(met, places, unseen, teacher.items, away, teacher.config))

    def _make_taught(self, data: TrainData) -> None:
        """Modules, and the buffers that `prepare` fills."""
        config, dim = self.config, self.config.teacher.dim
        learnable = self.train_content.present & self.warm.unsqueeze(1)
        landmarks = [min(config.landmarks, int(count)) for count in learnable.sum(dim=0)]
        self.mixture = TaughtMixture(landmarks, dim, config.experts, config.top_k, config.gate_hidden, config.dropout)
        self.profiles = Profiles(self.dims, config.components)
        self.register_buffer("teacher_users", torch.zeros(self.n_users, dim))
        self.register_buffer("teacher_items", torch.zeros(self.n_items, dim))
        self.register_buffer("popularity", torch.zeros(self.n_items))
        self.register_buffer("teacher_reg", torch.zeros(()))
        self.register_buffer("user_profiles", torch.zeros(self.n_users, self.profiles.width))
        self.register_buffer("profile_weight", torch.zeros(()))
        # in training only
        self.register_buffer("learnable", torch.nonzero(learnable.any(dim=1)).squeeze(1), persistent=False)
        self.register_buffer("unseen", torch.zeros(0), persistent=False)
        self.register_buffer("said", torch.zeros(0), persistent=False)
        self.register_buffer("importance", torch.zeros(0), persistent=False)

    def _with_a_say(self, has: Bool[Tensor, "rows modalities"]) -> Bool[Tensor, "rows modalities"]:
        """Which modalities the gate may choose: those the items have, or all of them where a missing one is filled."""
        if self.config.missing == "mask":
            return has
        if self.taught:  # experts have nothing to say of an item without any content
            return has.any(dim=1, keepdim=True).expand_as(has)
        return torch.ones_like(has)

    def _shown(self, has: Bool[Tensor, "rows modalities"]) -> Bool[Tensor, "rows modalities"]:
        """What the model gets to see: in training, less what modality dropout hides."""
        if self.training and self.config.modality_dropout:
            return drop_modalities(has, self.config.modality_dropout)
        return has

    def _fill(
        self, mixtures: list[Mixture], has: Bool[Tensor, "rows modalities"]
    ) -> Float[Tensor, "rows modalities dim"]:
        """The modality vectors, missing ones as `missing` says. The mean is a running one."""
        parts = torch.stack([mixture.vectors for mixture in mixtures], dim=1)
        if self.typical is None:
            return parts
        if self.training and self.config.missing == "mean":
            follow_mean(self.typical, parts, has)
        return torch.where(has.unsqueeze(2), parts, self.typical)
