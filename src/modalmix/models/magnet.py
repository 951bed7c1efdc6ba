"""MAGNET: graph experts with roles, routed by user-item pair, trained in two stages (Dai, Fang, Cai, arXiv 2602.20723).

y(u,i) = <own_u, own_i> + sum over the top k experts e of g_e(u,i) <f_e(u), f_e(i)> + t(i) phi(u,i)
Signals of a node: z^b of behaviour, z^m of each modality (contract/signals.py). Experts mix them by role; the gates see
the pair; entropies of the gates move training from covering all experts to deciding. own = z^b + the mean of the z^m;
phi is the training-free graph filter, in training without the event it scores, and t(i) how far an item's degree lets
it speak.
Implemented from the public description; what that leaves open is ours: docs/models/magnet.md. Expected here: see there.
"""

import copy
from collections.abc import Mapping
from functools import cached_property
from typing import Any, ClassVar, Literal, final

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from pydantic import Field, field_validator
from torch import Tensor, nn

from modalmix.data.catalog import Catalog
from modalmix.data.split import TrainData
from modalmix.models.contract import Query, Triples
from modalmix.models.contract.prior import FilterConfig, FilterPrior, PriorScores
from modalmix.models.contract.routed import Mixture, MixtureGradient, Nodes, RoutedScorer, pair_scores
from modalmix.models.contract.signals import SignalsConfig, SignalsRecommender, rows_of
from modalmix.nn.entropy import EntropySchedule, EpochRouting, Trigger, hesitation, utilisation
from modalmix.nn.gates import top_k_softmax
from modalmix.nn.losses import bpr_loss, info_nce, l2_penalty
from modalmix.nn.roles import PlainExperts, RoleExperts, available
from modalmix.nn.router import PairRouter, RouterKind

_TYPICAL = 2.0  # log(1 + degree) of a typical item: where the two parameters of trust do not pull at one another


class MagnetConfig(SignalsConfig):
    """Settings of MAGNET."""

    base: Literal["fused", "behaviour"] = "fused"
    """The inner product beside the experts: of behaviour plus content, or of behaviour alone."""
    prior: Literal["filter", "none"] = "filter"
    """Whether the graph filter takes part as a behavioural expert that is always heard."""
    filter: FilterConfig = FilterConfig()
    """The graph filter."""
    experts: Literal["roles", "plain", "none"] = "roles"
    """roles: by template; plain: perceptrons without roles; none: the fused inner product alone."""
    expert_hidden: int = Field(0, ge=0)
    """Width of each expert's perceptron; 0 leaves the templates alone (64 where experts are plain)."""
    router: RouterKind = "bilinear"
    """What the gates see: the pair (bilinear, mlp), the user, the item, or nothing (uniform)."""
    cues: Literal["signals", "evidence"] = "evidence"
    """What of a node the gates see beside agreement: its signals, degree and presence, or the last two alone."""
    mixture_gradient: MixtureGradient = "none"
    """What of the mixture moves the embeddings: experts and router, the experts, or neither."""
    top_k: int = Field(2, ge=1)
    """Experts a pair is given in stage 2; at most all of them."""
    noise: float = Field(0.5, ge=0)
    """Deviation of the Gaussian noise on the gates' logits in stage 1."""
    cover: float = Field(0.1, ge=0)
    """Weight of 1 - H_use, that all experts be used."""
    specialise: float = Field(0.02, ge=0)
    """Weight of H_route at the end of stage 2, that gates decide. Above .3 of `cover` one expert for all is best."""
    trigger: str = "coverage"
    """What starts stage 2: coverage, entropy_below, plateau, epoch:n, never."""
    trigger_threshold: float = Field(0.9, ge=0, le=1)
    """The entropy that `coverage` and `entropy_below` compare with."""
    trigger_window: int = Field(3, ge=1)
    """Epochs over which a rule must hold."""
    trigger_still: float = Field(0.02, ge=0)
    """How far H_route may move over the window and count as still (`coverage`, `plateau`)."""
    trigger_first: int = Field(5, ge=1)
    """The epoch at whose end stage 2 starts at the earliest, but for epoch:n."""
    trigger_latest: int = Field(30, ge=1)
    """The epoch at whose end stage 2 starts at the latest."""
    ramp: int = Field(5, ge=1)
    """Epochs over which the weights move in stage 2; early stopping waits for them."""
    contrast: float = Field(0.0, ge=0)
    """Weight of the contrast between the two views, and between content and behaviour."""
    temperature: float = Field(0.2, gt=0)
    """Temperature of the contrast."""
    lr: float = Field(7e-4, gt=0)
    """Learning rate of Adam."""
    reg: float = Field(5e-3, ge=0)
    """Weight of the squared length of the batch's embeddings."""
    epochs: int = Field(200, ge=1)
    """Most epochs."""
    patience: int = Field(9, ge=1)
    """Epochs without a better validation score before training stops."""
    eval_every: int = Field(3, ge=1)
    """Epochs between validations."""

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "paper": {
            "dropout": 0.0,
            "dual_view": True,
            "purify": True,
            "base": "behaviour",
            "prior": "none",
            "expert_hidden": 64,
            "cues": "signals",
            "mixture_gradient": "all",
            "contrast": 0.01,
            "specialise": 0.05,
            "ramp": 10,
            "lr": 1e-3,
            "lr_factor": 0.96,
            "reg": 1e-4,
            "epochs": 1000,
            "patience": 20,
            "eval_every": 1,
        },
        "no-prior": {"prior": "none", "lr": 4e-3, "reg": 0.0, "patience": 6},
        "both-ways": {"both_ways": True, "filter": {"both_ways": True}},
    }
    ablations: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "no-routing-regularisation": {"cover": 0.0, "specialise": 0.0},
        "no-experts": {"experts": "none"},
        "no-templates": {"experts": "plain", "expert_hidden": 64},  # beside "perceptrons", which has templates too
        "no-two-stages": {"trigger": "never"},
        "no-filter": {"prior": "none"},
        "full-cue": {"cue": "full"},
        "dual-view": {"dual_view": True},
        "contrast": {"contrast": 0.01},
        "perceptrons": {"expert_hidden": 64},
        "dense": {"top_k": 99},
        "router-uniform": {"router": "uniform"},
        "router-user": {"router": "user"},
        "router-item": {"router": "item"},
        "router-mlp": {"router": "mlp"},
        "moves-embeddings": {"mixture_gradient": "all"},
    }

    @field_validator("trigger")
    @classmethod
    def _known_trigger(cls, rule: str) -> str:
        return Trigger(rule).rule


@final
class Magnet(SignalsRecommender[MagnetConfig]):
    """Experts, router and schedule over the signals of users and items, beside the fused base and the filter."""

    mean_gate: Float[Tensor, " experts"]

    def __init__(self, config: MagnetConfig, data: TrainData) -> None:
        super().__init__(config, data)
        if config.prior == "filter":
            self.trust = nn.Parameter(torch.zeros(2))
        self.make_mixture()
        trigger = Trigger(
            config.trigger,
            first=config.trigger_first,
            window=config.trigger_window,
            threshold=config.trigger_threshold,
            still=config.trigger_still,
            latest=config.trigger_latest,
        )
        self.schedule = EntropySchedule(trigger, config.cover, config.specialise, config.ramp)
        self._routed = EpochRouting()
        self._report: Mapping[str, float] = {}

    def make_mixture(self) -> None:
        """Experts and router."""
        config, n = self.config, len(self.signals)
        self.experts: RoleExperts | PlainExperts | None = None
        if config.experts == "none":
            return
        if config.experts == "roles":
            self.experts = RoleExperts(n, config.dim, config.expert_hidden)
        else:
            self.experts = PlainExperts(n, config.dim, config.expert_hidden or 64)
        self.roles = self.experts.roles
        self.router = PairRouter(config.router, n, config.dim, len(self.roles), cues=config.cues)
        # nothing tells the first k from the others where the gates see nothing
        self.top_k = len(self.roles) if config.router == "uniform" else min(config.top_k, len(self.roles))
        self.register_buffer("mean_gate", torch.full((len(self.roles),), 1.0 / len(self.roles)))

    # parts of the score

    @cached_property
    def prior(self) -> FilterPrior:
        """phi over the training catalogue, made when it is first needed."""
        return self.prior_of(self.train_catalog)

    def prior_of(self, catalog: Catalog) -> FilterPrior:
        """phi over a catalogue."""
        return FilterPrior(self.interactions, self.item_graphs(catalog), self.shares.tolist(), self.config.filter)

    def own(self, z: Float[Tensor, "signals nodes dim"]) -> Float[Tensor, "nodes dim"]:
        """What a node is without experts: z^b, or z^b + sum_m w_m z^m with the weights of the item graphs."""
        if self.config.base == "behaviour" and self.experts is not None:
            return z[0]
        return z[0] + torch.einsum("m,mnd->nd", self.shares, z[1:])

    def nodes(self, z: Float[Tensor, "signals nodes dim"], degree: Tensor, present: Bool[Tensor, "nodes m"]) -> Nodes:
        """Nodes of these signals; behaviour is present where there is a train event."""
        return Nodes(self.own(z), z, degree, torch.cat([(degree > 0).unsqueeze(1), present], dim=1))

    def trust_in(self, degree: Float[Tensor, " items"]) -> Float[Tensor, " items"]:
        """t(i) = exp(c_0 + c_1 (log(1 + degree) - 2)) over the filter's deviation."""
        return (self.trust[0] + self.trust[1] * (degree.log1p() - _TYPICAL)).exp() / self.prior.scale

    # training

    def prepare(self, data: TrainData) -> None:
        """Score every train event by the filter without itself."""
        if self.config.prior == "filter":
            _ = self.prior.without_event, self.prior.scale

    def loss(self, batch: Triples) -> Mapping[str, Tensor]:
        """{"bpr", "cover", "specialise", "contrast", "reg"} of a batch, those of weight 0 left out."""
        pairs = torch.cat([batch.positive, batch.negative])
        rows = torch.cat([batch.user, self.n_users + pairs])
        of_views = self.behaviour(self.thinned or self.views, rows)
        of_users, of_items = self.fused(of_views, self.degree[rows]).split([len(batch.user), len(pairs)])
        stacked, present = self.content_signals(self.train_catalog)
        content = stacked.unbind()
        cue, left = self.cue(content, present, batch)
        users = self.nodes(torch.cat([of_users.unsqueeze(0), cue]), self.degree[batch.user], left)
        z = torch.cat([of_items.unsqueeze(0), rows_of(content, pairs)])
        items = self.nodes(z, self.degree[self.n_users + pairs], present[pairs])
        scores = (users.own.repeat(2, 1) * items.own).sum(dim=1)
        terms: dict[str, Tensor] = {}
        if self.experts is not None:
            logits, said = pair_scores(self.experts, self.router, users, items, self.config.mixture_gradient)
            scores = scores + (self.gates(logits) * said).sum(dim=1)
            terms = self.routing_terms(logits.softmax(dim=1))
        if self.config.prior == "filter":
            phi = torch.cat([self.prior.positives(batch), self.prior.negatives(batch)])
            scores = scores + self.trust_in(items.degree) * phi
        terms = {"bpr": bpr_loss(*scores.chunk(2))} | terms
        if self.config.contrast:
            terms["contrast"] = self.config.contrast * self.contrast(of_views, users, items, len(batch.user))
        if self.config.reg:
            ids = self.users(batch.user), self.items(batch.positive), self.items(batch.negative)
            terms["reg"] = self.config.reg * l2_penalty(*ids)
        return terms

    def gates(self, logits: Float[Tensor, "pairs experts"]) -> Float[Tensor, "pairs experts"]:
        """Stage 1: all experts, noise in training. Stage 2: the top k."""
        if self.schedule.specialising:
            return top_k_softmax(logits, self.top_k)
        if self.training and self.config.noise:
            logits = logits + self.config.noise * torch.randn_like(logits)
        return logits.softmax(dim=1)

    def routing_terms(self, gates: Float[Tensor, "pairs experts"]) -> dict[str, Tensor]:
        """w_cov (1 - H_use) + w_spec H_route, from the full softmax without noise."""
        self._routed.add(gates)
        cover, specialise = self.schedule.weights()
        terms = {"cover": cover * (1 - utilisation(gates))} if cover else {}
        return terms | ({"specialise": specialise * hesitation(gates)} if specialise else {})

    def contrast(self, of_views: list[Tensor], users: Nodes, items: Nodes, size: int) -> Tensor:
        """InfoNCE of mean content with behaviour, and of the two views, over the batch's users and positives.

        Each of `of_views` holds the `size` users, then the positives, then the negatives.
        """
        pairs = [(nodes.z[1:, :size].mean(dim=0), nodes.z[0, :size]) for nodes in (users, items)]
        if len(of_views) == 2:
            one, other = (view.split(size) for view in of_views)
            pairs += list(zip(one[:2], other[:2], strict=True))
        return torch.stack([info_nce(*pair, self.config.temperature) for pair in pairs]).sum()

    # schedule

    def start_epoch(self, epoch: int) -> None:
        """Thin the graphs; the schedule goes on."""
        super().start_epoch(epoch)
        self.schedule.start(epoch)
        self._routed = EpochRouting()

    def monitored(self) -> Mapping[str, Tensor]:
        """The mean gate of each expert, and the mean entropy of the gates."""
        return self._routed.means()

    def end_epoch(self, epoch: int, means: Mapping[str, float]) -> None:
        """Move the schedule by the epoch's entropies. Warns when experts collapse."""
        if "H_route" not in means:
            return
        gate = torch.tensor([means[f"gate/{k}"] for k in range(len(self.roles))])
        self.mean_gate.copy_(gate)
        self._report = self.schedule.conclude(gate, means["H_route"], [role.name(self.signals) for role in self.roles])

    def report(self) -> Mapping[str, float]:
        """H_use, H_route, stage, weights and the load of each expert; how far the filter is trusted."""
        if self.config.prior == "none":
            return self._report
        level, slope = self.trust.tolist()
        return {**self._report, "trust": level, "trust_by_degree": slope}

    @property
    def settled(self) -> bool:
        """Whether the two stages are through."""
        return self.experts is None or self.schedule.settled

    # scoring

    @torch.no_grad()
    def encode(self, catalog: Catalog) -> tuple[Nodes, Nodes]:
        """All users, and all items of a catalogue. Items added later have no behaviour."""
        self.check_extends(catalog)
        users, items = self.fused(self.behaviour(self.views), self.degree).split([self.n_users, self.n_items])
        content, present = self.content_signals(catalog)
        added = len(catalog) - self.n_items
        of_users = torch.cat([users.unsqueeze(0), self.mean_of_history(content)])
        of_items = torch.cat([F.pad(items, (0, 0, 0, added)).unsqueeze(0), content])
        user_degree, item_degree = self.degree.split([self.n_users, self.n_items])
        item_degree = F.pad(item_degree, (0, added))
        return self.nodes(of_users, user_degree, self.met(present) > 0), self.nodes(of_items, item_degree, present)

    def scorer(self, catalog: Catalog) -> RoutedScorer:
        """Exact scores, pair by pair. All experts in stage 1, the top k in stage 2."""
        users, items = self.encode(catalog)
        with torch.no_grad():
            return RoutedScorer(users, items, self.mixture(items), self.prior_scores(catalog, items))

    def mixture(self, items: Nodes) -> Mixture | None:
        """Experts and router as they are now."""
        if self.experts is None:
            return None
        k = self.top_k if self.schedule.specialising else len(self.roles)
        frozen = copy.deepcopy(self.experts), copy.deepcopy(self.router)
        return Mixture(*frozen, available(self.roles, items.present), k, self.mean_gate.clone())

    def prior_scores(self, catalog: Catalog, items: Nodes) -> PriorScores | None:
        """t(i) phi(u,i) of all items of a catalogue."""
        if self.config.prior == "none":
            return None
        prior = self.prior if catalog is self.train_catalog else self.prior_of(catalog)
        return PriorScores(prior, self.trust_in(items.degree).cpu())

    @torch.no_grad()
    def vectors(self, catalog: Catalog) -> tuple[Float[Tensor, "users wide"], Float[Tensor, "items wide"]]:
        """Vectors whose inner product is the score with the mean gate for every pair, the prior left out: what an index
        retrieves by, before `RoutedScorer.pairs` scores exactly."""
        users, items = self.encode(catalog)
        scorer = RoutedScorer(users, items, self.mixture(items))
        return scorer.vectors(Query(users=torch.arange(self.n_users))), scorer.item_vectors

    def routing(self, query: Query, items: Int[Tensor, " items"]) -> Mapping[str, Tensor] | None:
        """ "experts": the gates [queries, items, experts] of training items, in the order of `self.roles`."""
        if self.experts is None:
            return None
        return {"experts": self.scorer(self.train_catalog).gates(query, items)}
