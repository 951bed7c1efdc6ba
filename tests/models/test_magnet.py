"""MAGNET against its equations, restated with dense float64 matrices, pair by pair."""

from collections.abc import Callable
from dataclasses import replace
from itertools import product
from typing import Any, NamedTuple

import numpy as np
import polars as pl
import pytest
import scipy.sparse as sp
import torch
import torch.nn.functional as F
from torch import Tensor

from modalmix.data.interactions import Interactions
from modalmix.data.split import TrainData
from modalmix.models.contract import Query, Triples
from modalmix.models.contract.prior import FilterConfig, FilterPrior
from modalmix.models.magnet import Magnet, MagnetConfig
from modalmix.nn.graph import thin

Shop = Callable[..., TrainData]
USERS, ITEMS = 40, 30
EVERYBODY = Query(users=torch.arange(USERS))
TRIALS: dict[str, Any] = {  # every setting that the formulas know: a test never leans on a default
    "dim": 6,
    "layers": 2,
    "dropout": 0.0,
    "dual_view": True,
    "edges": {"agree": 1, "user_edges": 2, "item_edges": 2, "tail": 0.4, "rho": 9.0, "augment": "ui"},
    "edge_weight": 0.5,
    "graph_weights": {"image": 0.3, "text": 0.7},
    "neighbors": 4,
    "purify": False,
    "cue": "leave-out",
    "base": "fused",
    "prior": "none",
    "filter": {"exponents": (0.35, 0.5, 0.15), "hops": (1.5, 0.5), "entries": 1000},
    "experts": "roles",
    "expert_hidden": 0,
    "router": "bilinear",
    "cues": "signals",
    "mixture_gradient": "all",
    "top_k": 2,
    "noise": 0.0,
    "cover": 0.1,
    "specialise": 0.05,
    "trigger": "coverage",
    "trigger_latest": 30,
    "ramp": 10,
    "contrast": 0.02,
    "temperature": 0.3,
    "reg": 0.01,
}
TEMPLATES = {  # dominant, balanced, complementary, as the paper's three signals and as two
    3: [
        *[[0.8, 0.1, 0.1], [0.1, 0.8, 0.1], [0.1, 0.1, 0.8]],
        *[[0.45, 0.45, 0.1], [0.45, 0.1, 0.45], [0.1, 0.45, 0.45]],
        *[[0.0, 0.5, 0.5], [0.5, 0.0, 0.5], [0.5, 0.5, 0.0]],
    ],
    2: [[0.8, 0.2], [0.2, 0.8], [0.5, 0.5], [0.0, 1.0], [1.0, 0.0]],
}
OWN = {3: [(0,), (1,), (2,), (0, 1), (0, 2), (1, 2), (0,), (1,), (2,)], 2: [(0,), (1,), (0, 1), (0,), (1,)]}


@pytest.fixture
def data(content_shop: Shop) -> TrainData:
    """Item 9 has nothing at all; 25 is cold and lacks its image; user 0 met one item, user 1 two, user 2 none."""
    shop = content_shop(absent={"image": [3, 9, 25], "text": [9, 12]})
    events, kept = shop.interactions, np.ones(len(shop.interactions), dtype=bool)
    for user, most in ((0, 1), (1, 2), (2, 0)):
        kept[np.flatnonzero(events.user == user)[most:]] = False
    return replace(shop, interactions=events.take(kept))


def model(data: TrainData, moved: bool = True, **settings: Any) -> Magnet:
    """A model whose every weight has moved from where it starts."""
    torch.manual_seed(0)
    built = Magnet(MagnetConfig.parse({**TRIALS, **settings}), data)
    for weight in built.parameters() if moved else ():
        torch.nn.init.normal_(weight, std=0.4)
    return built


def triples(data: TrainData) -> Triples:
    """Users 0 and 1 with their every item, a user with items that lack something, a positive that another draws."""
    events = data.interactions
    rows = [*np.flatnonzero(events.user < 2), *np.flatnonzero(np.isin(events.item, [3, 9, 12]))[:4], 60, 61, 62]
    user, positive = (torch.from_numpy(part[rows].astype(np.int64)) for part in (events.user, events.item))
    met = data.interactions.csr.toarray()[user]
    negative = [int(np.flatnonzero(row[:24] == 0)[(5 * k) % 11]) for k, row in enumerate(met)]
    return Triples(user, positive, torch.tensor(negative))


class Node(NamedTuple):
    """Rows of nodes, or of one side of pairs."""

    own: Tensor
    z: Tensor
    degree: Tensor
    present: Tensor

    def rows(self, rows: Any) -> "Node":
        return Node(self.own[rows], self.z[:, rows], self.degree[rows], self.present[rows])


def normalized(a: Tensor) -> Tensor:
    """D^-1/2 A D^-1/2, D the row sums."""
    root = a.sum(dim=1).pow(-0.5)
    root[root.isinf()] = 0.0
    return root[:, None] * a * root[None, :]


class Plain:
    """The equations with dense matrices of float64. `p`: the model's weights, gradients of their own."""

    def __init__(self, built: Magnet, data: TrainData) -> None:
        self.c, self.names, self.data, self.prior = built.config, built.modalities, data, built.prior_of
        self.p = {name: one.detach().double().requires_grad_() for name, one in built.named_parameters()}
        self.r = torch.from_numpy(data.interactions.csr.toarray()).double()
        self.degree = torch.cat([self.r.sum(dim=1), self.r.sum(dim=0)])
        x = [torch.from_numpy(data.catalog.modality(name).matrix()).double() for name in self.names]
        self.x = [F.normalize(one.nan_to_num(), dim=1) for one in x]
        self.present = torch.stack([one.any(dim=1) for one in self.x], dim=1)
        self.cosines = [self.nearest(one) for one in self.x]
        given = self.c.graph_weights or {
            name: self.together(g) for name, g in zip(self.names, self.cosines, strict=True)
        }
        self.weights = torch.tensor([given[name] / sum(given.values()) for name in self.names]).double()

    def nearest(self, x: Tensor) -> Tensor:
        """Cosines of each row's nearest, itself among them."""
        cosine = x @ x.T
        cosine[:, ~x.any(dim=1)] = -2.0
        best, found = cosine.topk(self.c.neighbors, dim=1)
        graph = torch.zeros_like(cosine).scatter(1, found, best.clamp(min=0.0))
        return graph * x.any(dim=1, keepdim=True)

    def together(self, graph: Tensor) -> float:
        """How often neighbours have users in common: mean of c_ij / sqrt(d_i d_j)."""
        d = self.r.sum(dim=0).clamp(min=1)
        common = self.r.T @ self.r / (d[:, None] * d[None, :]).sqrt()
        edges = (graph > 0) & ~torch.eye(len(graph), dtype=torch.bool)
        return float(common[edges].mean())

    def edges(self) -> tuple[Tensor, Tensor]:
        """P [users, items] and S [items, items], pair by pair."""
        s = torch.zeros(ITEMS, ITEMS).double()
        for weight, graph in zip(self.weights, self.cosines, strict=True):
            others = graph - torch.diag(graph.diagonal())
            s += weight * others / others.sum(dim=1, keepdim=True).clamp(min=1e-300)
        e, q = self.c.edges, (self.r @ s) / self.r.sum(dim=1, keepdim=True).clamp(min=1).sqrt()
        q[self.r > 0] = 0.0
        item_degree = self.r.sum(dim=0)
        rare = item_degree <= torch.quantile(item_degree, e.tail)
        chosen = torch.zeros_like(q)
        for u in range(USERS):  # ties: the next in circular order from the own number
            order = sorted(range(ITEMS), key=lambda i, u=u: (-round(float(q[u, i]), 7), (i - u) % ITEMS))
            chosen[u, order[: e.user_edges]] = 1.0
        for i in torch.nonzero(rare).flatten().tolist():
            order = sorted(range(USERS), key=lambda u, i=i: (-round(float(q[u, i]), 7), (u - i) % USERS))
            chosen[order[: e.item_edges], i] = 1.0
        p = chosen * q
        return p / p.amax(dim=1, keepdim=True).clamp(min=1e-300), s

    def views(self, r: Tensor) -> list[Tensor]:
        """Z^A, and Z^B where there are two views."""
        blocks = [(r, torch.zeros(ITEMS, ITEMS).double())]
        if self.c.dual_view:
            (p, s), w, kind = self.edges(), self.c.edge_weight, self.c.edges.augment
            among = w * (s + s.T) / 2 if kind != "ui" else blocks[0][1]
            blocks.append((r + w * p if kind != "ii" else r, among))
        found = []
        for between, among in blocks:
            a = torch.zeros(USERS + ITEMS, USERS + ITEMS).double()
            a[:USERS, USERS:], a[USERS:, :USERS], a[USERS:, USERS:] = between, between.T, among
            layers = [torch.cat([self.p["users.weight"], self.p["items.weight"]])]
            for _ in range(self.c.layers):
                layers.append(normalized(a) @ layers[-1])
            found.append(torch.stack(layers).mean(dim=0))
        return found

    def fused(self, views: list[Tensor]) -> Tensor:
        if len(views) == 1:
            return views[0]
        rows = []
        for node in range(USERS + ITEMS):
            both = torch.cat([views[0][node], views[1][node]])
            logit = self.p["fuse.weight"][0] @ both + self.p["fuse_degree"] * torch.log(1 + self.degree[node])
            beta = torch.sigmoid(logit + self.p["fuse.bias"][0])
            rows.append((1 - beta) * views[0][node] + beta * views[1][node])
        return torch.stack(rows)

    def content(self) -> Tensor:
        """z^m of the items."""
        found = []
        for k, graph in enumerate(self.cosines):
            a = self.p["items.weight"]
            if self.c.purify:
                inner = self.x[k] @ self.p[f"project.{k}.weight"].T + self.p[f"project.{k}.bias"]
                a = a * torch.sigmoid(inner @ self.p[f"gate.{k}.weight"].T + self.p[f"gate.{k}.bias"])
            a = a * self.present[:, k : k + 1]
            found.append(normalized((graph > 0).double()) @ a)
        return torch.stack(found)

    def node(self, z: Tensor, degree: Tensor, present: Tensor) -> Node:
        own = z[0]
        if self.c.base == "fused" or self.c.experts == "none":
            own = own + sum(weight * part for weight, part in zip(self.weights, z[1:], strict=True))
        return Node(own, z, degree, torch.cat([(degree > 0).unsqueeze(1), present], dim=1))

    def history(self, user: int, without: int | None = None) -> tuple[Tensor, Tensor]:
        """The mean of a history's content, and which modalities are in it."""
        met = [int(i) for i in torch.nonzero(self.r[user]).flatten() if int(i) != without]
        z = self.content()
        if not met:
            return torch.zeros_like(z[:, 0]), torch.zeros(len(z), dtype=torch.bool)
        present = self.present[met].any(dim=0)
        return z[:, met].mean(dim=1) * present.unsqueeze(1), present

    def experts(self, z: Tensor) -> list[Tensor]:
        """What each expert makes of rows of nodes."""
        n, hidden, p = len(z), self.c.expert_hidden, self.p
        if self.c.experts == "plain":
            both = torch.cat(list(z), dim=1)
            return [F.gelu(both @ a) @ b for a, b in zip(p["experts.into"], p["experts.out"], strict=True)]
        found = []
        for e, row in enumerate(TEMPLATES[n]):
            powers = torch.tensor(row).double() * torch.exp(0.5 * torch.tanh(p["experts.theta"][e]))
            parts = [a * part for a, part in zip(powers / powers.sum(), z, strict=True)]
            if e < len(TEMPLATES[n]) - n:
                out, beside = sum(parts), torch.cat(parts, dim=1)
                into, onto = (p[f"experts.mixed_{way}"][e] for way in ("in", "out")) if hidden else (None, None)
            else:
                own = z[e - len(TEMPLATES[n]) + n]
                rest = sum(parts)
                rest = rest - (rest * own).sum(1, keepdim=True) / ((own * own).sum(1, keepdim=True) + 1e-8) * own
                k = e - len(TEMPLATES[n]) + n
                out, beside = torch.sigmoid(own @ p["experts.gate"][k]) * rest, torch.cat([own, rest], dim=1)
                into, onto = (p[f"experts.beside_{way}"][k] for way in ("in", "out")) if hidden else (None, None)
            found.append(out if into is None else out + F.gelu(beside @ into) @ onto)
        return found

    def logits(self, u: Node, i: Node) -> Tensor:
        """[pairs, experts]: of row-aligned pairs."""
        p, kind, n = self.p, self.c.router, len(u.z)
        allowed = torch.ones(len(i.degree), len(OWN[n]), dtype=torch.bool)
        for row, e in product(range(len(i.degree)), range(len(OWN[n]))):
            has = all(bool(i.present[row, one]) for one in OWN[n][e])
            others = any(bool(i.present[row, m]) for m in range(n) if m not in OWN[n][e])
            allowed[row, e] = has and (others or e < len(OWN[n]) - n)
        allowed[~allowed.any(dim=1), 0] = True
        logits = -1e-5 * torch.arange(len(OWN[n])).double() + torch.where(allowed, 0.0, -1e4).double()
        if kind == "uniform":
            return logits
        logits = logits + p["router.bias"]

        def summary(node: Node, side: str) -> Tensor:
            seen = [torch.log(1 + node.degree).unsqueeze(1), node.present.double()]
            seen = [*node.z, *seen] if self.c.cues == "signals" else seen
            return torch.cat(seen, dim=1) @ p[f"router.{side}_summary.weight"].T + p[f"router.{side}_summary.bias"]

        pu = summary(u, "user") if kind != "item" else None
        pi = summary(i, "item") if kind != "user" else None
        logits = logits + (0 if pu is None else pu @ p["router.user_weight"].T)
        logits = logits + (0 if pi is None else pi @ p["router.item_weight"].T)
        if kind == "mlp":
            both = pu @ p["router.user_hidden.weight"].T + p["router.user_hidden.bias"]
            both = both + pi @ p["router.item_hidden.weight"].T
            logits = logits + F.gelu(both) @ p["router.out"].T
        if kind == "bilinear":
            logits = logits + torch.einsum("rk,ekl,rl->re", pu, p["router.meet"], pi)
            for m in range(n):
                qu, qi = u.z[m] @ p["router.signal"][m], i.z[m] @ p["router.signal"][m]
                logits = logits + (F.normalize(qu) * F.normalize(qi)).sum(1, keepdim=True) * p["router.agreement"][:, m]
        return logits

    def gates(self, logits: Tensor, top_k: int | None) -> Tensor:
        if top_k is None or self.c.router == "uniform":
            return logits.softmax(dim=1)
        lowest = logits.sort(dim=1, descending=True).values[:, min(top_k, logits.shape[1]) - 1]
        return logits.masked_fill(logits < lowest[:, None], -torch.inf).softmax(dim=1)

    def said(self, u: Node, i: Node) -> Tensor:
        both = zip(self.experts(u.z), self.experts(i.z), strict=True)
        return torch.stack([(a * b).sum(dim=1) for a, b in both], dim=1)

    def trust(self, degree: Tensor) -> Tensor:
        scale = self.filter().scale
        return torch.exp(self.p["trust"][0] + self.p["trust"][1] * (torch.log(1 + degree) - 2)) / scale

    def filter(self) -> FilterPrior:
        """Tested by itself; here: from the right graphs and weights."""
        graphs = [sp.csr_matrix(graph.numpy()) for graph in self.cosines]
        settings = FilterConfig.parse(self.c.filter.model_dump())
        return FilterPrior(self.data.interactions.csr, graphs, self.weights.tolist(), settings)

    @torch.no_grad()
    def scores(self, top_k: int | None) -> Tensor:
        """All users and items, pair by pair."""
        zb, z = self.fused(self.views(self.r)) * (self.degree > 0).unsqueeze(1), self.content()
        cues = [self.history(user) for user in range(USERS)]
        cue, met = torch.stack([one for one, _ in cues], dim=1), torch.stack([one for _, one in cues])
        users = self.node(torch.cat([zb[None, :USERS], cue]), self.degree[:USERS], met)
        items = self.node(torch.cat([zb[None, USERS:], z]), self.degree[USERS:], self.present)
        u, i = torch.cartesian_prod(torch.arange(USERS), torch.arange(ITEMS)).T
        users, items = users.rows(u), items.rows(i)
        found = (users.own * items.own).sum(dim=1)
        if self.c.experts != "none":
            found = found + (self.gates(self.logits(users, items), top_k) * self.said(users, items)).sum(dim=1)
        if self.c.prior == "filter":
            found = found + self.trust(items.degree) * self.filter().rows(EVERYBODY)[u, i].double()
        return found.view(USERS, ITEMS)

    def terms(
        self,
        batch: Triples,
        r: Tensor,
        noise: Tensor | float = 0.0,
        stage: tuple[float, float, int | None] = (0.1, 0, None),
    ) -> dict[str, Tensor]:
        """The loss; `stage`: weights of cover and specialise, and how many experts a pair has (None: all)."""
        views, z = self.views(r), self.content()
        zb = self.fused(views)
        size, pairs = len(batch.user), torch.cat([batch.positive, batch.negative])
        if self.c.cue == "leave-out":
            cues = [self.history(int(u), int(i)) for u, i in zip(batch.user, batch.positive, strict=True)]
        else:
            cues = [self.history(int(u)) for u in batch.user]
        cue, left = torch.stack([one for one, _ in cues], dim=1), torch.stack([one for _, one in cues])
        users = self.node(torch.cat([zb[batch.user][None], cue]), self.degree[batch.user], left)
        items = self.node(
            torch.cat([zb[USERS + pairs][None], z[:, pairs]]), self.degree[USERS + pairs], self.present[pairs]
        )
        users = users.rows(torch.arange(size).repeat(2))
        scores, terms = (users.own * items.own).sum(dim=1), {}
        if self.c.experts != "none":
            moved = self.c.mixture_gradient
            still = [node._replace(z=node.z.detach()) for node in (users, items)]
            logits = self.logits(*((users, items) if moved == "all" else still))
            gates = self.gates(logits + noise, stage[2])
            scores = scores + (gates * self.said(*(still if moved == "none" else (users, items)))).sum(dim=1)
            whole, top = logits.softmax(dim=1), np.log(logits.shape[1])
            mean = whole.mean(dim=0)
            surprise = torch.where(whole > 1e-30, whole, 1.0).log()
            if stage[0]:
                terms["cover"] = stage[0] * (1 + (mean * mean.clamp(min=1e-30).log()).sum() / top)
            if stage[1]:
                terms["specialise"] = stage[1] * -(whole * surprise).sum(dim=1).mean() / top
        if self.c.prior == "filter":
            found = self.filter()
            phi = torch.cat([found.positives(batch), found.negatives(batch)]).double()
            scores = scores + self.trust(items.degree) * phi
        terms["bpr"] = -torch.sigmoid(scores[:size] - scores[size:]).log().mean()
        if self.c.contrast:
            total = [self.contrast(node.z[1:, :size].mean(dim=0), node.z[0, :size]) for node in (users, items)]
            if self.c.dual_view:
                for rows in (batch.user, USERS + batch.positive):
                    total.append(self.contrast(views[0][rows], views[1][rows]))
            terms["contrast"] = self.c.contrast * sum(total)
        if self.c.reg:
            rows = ("users", batch.user), ("items", batch.positive), ("items", batch.negative)
            terms["reg"] = self.c.reg * sum(self.p[f"{name}.weight"][row].pow(2).sum() for name, row in rows) / size
        return terms

    def contrast(self, a: Tensor, b: Tensor) -> Tensor:
        rows = []
        for k in range(len(a)):
            cosines = torch.stack([torch.cosine_similarity(a[k], other, dim=0, eps=1e-12) for other in b])
            rows.append(torch.logsumexp(cosines / self.c.temperature, 0) - cosines[k] / self.c.temperature)
        return torch.stack(rows).mean()


FORMS: dict[str, dict[str, Any]] = {
    "nine experts": {},
    "weights found": {"graph_weights": None, "neighbors": 6},
    "one view": {"dual_view": False, "layers": 3},
    "item edges": {"edges": {**TRIALS["edges"], "augment": "ii"}, "edge_weight": 2.0},
    "both kinds of edges": {"edges": {**TRIALS["edges"], "augment": "both"}, "layers": 1},
    "base behaviour": {"base": "behaviour"},
    "purified": {"purify": True, "contrast": 0.0, "reg": 0.0},
    "experts with perceptrons": {"expert_hidden": 5},
    "plain experts": {"experts": "plain", "expert_hidden": 4, "base": "behaviour"},
    "no experts": {"experts": "none", "base": "behaviour"},
    "no experts but the filter": {"experts": "none", "prior": "filter", "graph_weights": None},
    "mlp": {"router": "mlp", "mixture_gradient": "experts"},
    "user": {"router": "user", "cues": "evidence"},
    "item": {"router": "item"},
    "uniform": {"router": "uniform", "top_k": 1},
    "evidence": {"cues": "evidence", "mixture_gradient": "none"},
    "the filter": {"prior": "filter", "mixture_gradient": "experts", "cues": "evidence", "top_k": 3},
    "full cue": {"cue": "full", "top_k": 9},
    "one modality": {"modalities": ("text",), "graph_weights": {"text": 2.0}, "top_k": 1},
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("stage", [1, 2])
def test_scores_of_all_pairs(data: TrainData, form: str, stage: int) -> None:
    """Chunked full ranking against brute force: all experts in stage 1, the top k in stage 2."""
    built = model(data, **FORMS[form])
    built.schedule.stage.fill_(stage)
    expected = Plain(built, data).scores(None if stage == 1 else built.config.top_k)
    found = built.scorer(data.catalog)(EVERYBODY)
    torch.testing.assert_close(found.double(), expected, atol=1e-5, rtol=1e-5)
    assert expected.std() > 0.01
    pairs = built.scorer(data.catalog).pairs(Query(users=torch.tensor([7, 2])), torch.tensor([[9, 25], [3, 0]]))
    torch.testing.assert_close(pairs.double(), expected[[[7, 7], [2, 2]], [[9, 25], [3, 0]]], atol=1e-5, rtol=1e-5)


def compare(built: Magnet, plain: Plain, found: Any, expected: dict[str, Tensor]) -> None:
    """Terms, and the gradient of every weight."""
    assert found.keys() == expected.keys()
    for name, term in found.items():
        torch.testing.assert_close(
            term.double(), expected[name], atol=1e-6, rtol=1e-4, msg=lambda m, n=name: f"{n}: {m}"
        )
    torch.stack(list(found.values())).sum().backward()
    torch.stack(list(expected.values())).sum().backward()
    for name, weight in built.named_parameters():
        wanted = plain.p[name].grad
        wanted = torch.zeros_like(plain.p[name]) if wanted is None else wanted
        gradient = torch.zeros_like(weight) if weight.grad is None else weight.grad
        torch.testing.assert_close(gradient.double(), wanted, atol=2e-6, rtol=1e-3, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.parametrize("form", FORMS)
def test_terms_and_gradients_in_stage_1(data: TrainData, form: str) -> None:
    """With noise on the gates, and every epoch its own thinned graph."""
    built = model(data, **{**FORMS[form], "noise": 0.7, "dropout": 0.4})
    plain, batch = Plain(built, data), triples(data)
    built.train()
    built.start_epoch(3)
    torch.manual_seed(5)
    found = built.loss(batch)
    torch.manual_seed(5)
    noise: Any = 0.0
    if built.experts is not None:
        noise = 0.7 * torch.randn(2 * len(batch.user), len(built.roles)).double()
    kept = thin(data.interactions.csr, 0.4, np.random.default_rng([built.config.seed, 3])).toarray()
    compare(built, plain, found, plain.terms(batch, torch.from_numpy(kept).double(), noise))


@pytest.mark.parametrize("form", FORMS)
def test_terms_and_gradients_in_stage_2(data: TrainData, form: str) -> None:
    """Four of ten epochs into it: w_cov = .1 (1 - .7 r), w_spec = .05 r, r = (1 - cos .4 pi) / 2; k experts, no noise."""
    built = model(data, **{**FORMS[form], "noise": 0.7})
    plain, batch = Plain(built, data), triples(data)
    built.schedule.stage.fill_(2)
    built.schedule.triggered.fill_(6)
    built.train()
    built.start_epoch(10)
    rise = 0.5 - 0.5 * np.cos(0.4 * np.pi)
    stage = (0.1 * (1 - 0.7 * rise), 0.05 * rise, built.config.top_k)
    compare(built, plain, built.loss(batch), plain.terms(batch, plain.r, stage=stage))


@pytest.mark.parametrize("changes", [{"cover": 0.0}, {"reg": 0.0}, {"contrast": 0.0}, {"experts": "none"}])
def test_terms_of_weight_zero_are_left_out(data: TrainData, changes: dict[str, Any]) -> None:
    gone = {"cover"} if "experts" in changes else set(changes)
    found = model(data, **changes).loss(triples(data))
    assert found.keys() == {"bpr", "cover", "contrast", "reg"} - gone


class TestLeavePositiveOut:
    def cue(self, built: Magnet, user: int, positive: int) -> tuple[Tensor, Tensor, Tensor]:
        """Cue and presence of a training pair, and z of all items."""
        z, present = built.content_signals(built.train_catalog)
        cue, left = built.cue(z, present, Triples(*(torch.tensor([one]) for one in (user, positive, 0))))
        return cue[:, 0], left[0], z

    def met(self, data: TrainData, user: int) -> list[int]:
        return data.interactions.csr[user].indices.tolist()

    def test_of_a_user_with_one_event_nothing_is_left(self, data: TrainData) -> None:
        (item,) = self.met(data, 0)
        cue, left, z = self.cue(model(data), 0, item)
        assert z[:, item].any()
        assert not cue.any()
        assert left.tolist() == [False, False]

    def test_of_two_the_other_is_left(self, data: TrainData) -> None:
        one, other = self.met(data, 1)
        for positive, rest in ((one, other), (other, one)):
            cue, left, z = self.cue(model(data), 1, positive)
            torch.testing.assert_close(cue, z[:, rest], atol=1e-6, rtol=1e-5)
            assert left.tolist() == [True, True]

    def test_presence_is_counted(self, content_shop: Shop) -> None:
        """What is left of a user whose only other item has text alone, or nothing."""
        shop = content_shop(absent={"image": [1, 2], "text": [2]})
        pairs = [(0, 0), (0, 1), (1, 0), (1, 2), (2, 1), (2, 2)] + [
            (u, 3 + (u + k) % 20) for u in range(3, 40) for k in (0, 3)
        ]
        user, item = np.array(pairs, dtype=np.int32).T
        built = model(replace(shop, interactions=Interactions(user, item, 40, 30)))
        expected = {(0, 0): [False, True], (0, 1): [True, True], (1, 0): [False, False], (1, 2): [True, True]}
        for (u, positive), present in {**expected, (2, 1): [False, False], (2, 2): [False, True]}.items():
            cue, left, z = self.cue(built, u, positive)
            assert left.tolist() == present
            assert cue.any(dim=1).tolist() == present, "exactly zero where nothing is left"

    def test_the_content_of_the_positive_changes_nothing(self, data: TrainData) -> None:
        """Exactly z_i is taken out: whatever it is, the cue stays."""
        built, user = model(data), 7
        z, present = built.content_signals(built.train_catalog)
        positive = self.met(data, user)[2]
        batch = Triples(*(torch.tensor([one]) for one in (user, positive, 0)))
        before, _ = built.cue(z, present, batch)
        other = z.detach().clone()
        other[:, positive] += 10 * torch.randn(2, 6)
        after, _ = built.cue(other, present, batch)
        torch.testing.assert_close(after, before, atol=1e-5, rtol=1e-5)
        full = model(data, cue="full")
        assert (full.cue(other, present, batch)[0] - full.cue(z, present, batch)[0]).abs().max() > 0.1

    def test_every_pair_against_the_items_left(self, data: TrainData) -> None:
        built, plain = model(data), Plain(model(data), data)
        for user in (0, 1, 7, 12, 39):
            for positive in self.met(data, user):
                cue, left, _ = self.cue(built, user, positive)
                expected, present = plain.history(user, positive)
                torch.testing.assert_close(cue.double(), expected, atol=1e-6, rtol=1e-5)
                assert left.tolist() == present.tolist()


class TestViews:
    NONE = {**TRIALS["edges"], "user_edges": 0, "item_edges": 0}

    def test_without_content_induced_edges_view_b_is_view_a_bit_for_bit(self, data: TrainData) -> None:
        built = model(data, edges=self.NONE, dropout=0.5)
        for epoch in (None, 1):
            if epoch:
                built.start_epoch(epoch)
            views = built.behaviour(built.views if epoch is None else built.thinned)
            assert torch.equal(*views)
            assert torch.equal(built.fused(views), views[0])
        with_edges = model(data)
        assert not torch.equal(*with_edges.behaviour(with_edges.views))

    def test_no_edge_is_a_train_event(self, data: TrainData) -> None:
        pseudo, _ = model(data, edges={**TRIALS["edges"], "user_edges": 8, "item_edges": 8}).added
        assert pseudo.nnz > 300
        assert pseudo.multiply(data.interactions.csr).nnz == 0
        assert pseudo[2].nnz == 0, "by rows a user without an event has none"

    def test_edges_know_train_events_alone(self, content_shop: Shop) -> None:
        """Whatever is held out (another fifth of the events moved there), only the train part decides."""
        shop = content_shop()
        rng = np.random.default_rng(0)
        train = shop.interactions.take(rng.random(len(shop.interactions)) < 0.8)
        one, other = (model(replace(shop, interactions=part)).added[0] for part in (train, train.take(slice(None))))
        assert (one != other).nnz == 0
        assert (one != model(shop).added[0]).nnz > 0, "held-out events, were they seen, would change edges"
        assert one.multiply(shop.interactions.csr).nnz > 0, "an edge may foretell a held-out event: nobody told it"

    def test_the_fusion_starts_near_view_a(self, data: TrainData) -> None:
        built = model(data, moved=False)
        real, added = built.behaviour(built.views)
        beta = torch.sigmoid(-0.85 - 0.1 * built.degree.log1p()).unsqueeze(1)
        torch.testing.assert_close(built.fused([real, added]), (1 - beta) * real + beta * added)

    def test_scores_take_the_whole_graph_after_an_epoch(self, data: TrainData) -> None:
        built = model(data, dropout=0.8)
        before = built.scorer(data.catalog)(EVERYBODY)
        built.start_epoch(1)
        assert built.thinned[0].columns.numel() < 0.3 * built.views[0].columns.numel()
        torch.testing.assert_close(built.scorer(data.catalog)(EVERYBODY), before, atol=0, rtol=0)


class TestServing:
    def test_vectors_give_the_score_with_the_mean_gate(self, data: TrainData) -> None:
        built = model(data, prior="filter")
        built.mean_gate.copy_(torch.rand(9).softmax(dim=0))
        users, items = built.vectors(data.catalog)
        nodes = built.encode(data.catalog)
        expected = nodes[0].own @ nodes[1].own.T
        for e, gate in enumerate(built.mean_gate):
            expected = expected + gate * (built.experts(nodes[0].z)[e] @ built.experts(nodes[1].z)[e].T)
        torch.testing.assert_close(users @ items.T, expected.detach(), atol=1e-5, rtol=1e-5)
        bare = model(data, experts="none")
        plain = Plain(bare, data).scores(None)
        users, items = bare.vectors(data.catalog)
        torch.testing.assert_close((users @ items.T).double(), plain, atol=1e-5, rtol=1e-5)

    def test_routing_says_which_experts_a_pair_has(self, data: TrainData) -> None:
        built = model(data, top_k=2)
        assert built.routing(EVERYBODY, torch.arange(ITEMS))["experts"].count_nonzero(dim=2)[5, 0] == 9
        built.schedule.stage.fill_(2)
        gates = built.routing(EVERYBODY, torch.tensor([0, 9, 25]))["experts"]
        assert gates.shape == (USERS, 3, 9)
        torch.testing.assert_close(gates.sum(dim=2), torch.ones(USERS, 3))
        assert gates.count_nonzero(dim=2)[:, 0].tolist() == [2] * USERS
        dominant = [role.name(built.signals) for role in built.roles].index("dominant behaviour")
        assert gates[:, 1, dominant].tolist() == [1.0] * USERS, "item 9 has behaviour alone"
        assert gates[:, 2].count_nonzero(dim=0).nonzero().flatten().tolist() == [
            [role.name(built.signals) for role in built.roles].index("dominant text")
        ], "item 25 is cold and has text alone"
        assert model(data, experts="none").routing(EVERYBODY, torch.arange(2)) is None

    def test_an_added_twin_scores_by_its_neighbours_and_the_others_keep_theirs(self, data: TrainData) -> None:
        twin = {name: one.matrix([5]) for name, one in data.catalog.modalities.items()}
        bigger = data.catalog.extend(pl.DataFrame({"item": [999]}), twin)
        for changes in ({"prior": "filter"}, {"purify": True, "experts": "none"}):
            built = model(data, **changes)
            before, after = built.scorer(data.catalog)(EVERYBODY), built.scorer(bigger)(EVERYBODY)
            torch.testing.assert_close(after[:, :ITEMS], before, atol=1e-5, rtol=1e-5)
            _, items = built.encode(bigger)
            torch.testing.assert_close(items.z[1:, ITEMS], items.z[1:, 5], atol=1e-5, rtol=1e-4)
            assert not items.z[0, ITEMS].any()
            assert after[:, ITEMS].std() > 0.01

    def test_a_history_of_what_a_user_met_has_that_users_cue(self, data: TrainData) -> None:
        built = model(data, prior="filter")
        scorer = built.scorer(data.catalog)
        met = data.interactions.csr[7].indices
        asked, known = scorer.asked(Query(history=torch.from_numpy(met[None].astype(np.int64)))), scorer.users.rows([7])
        torch.testing.assert_close(asked.z[1:], known.z[1:], atol=1e-6, rtol=1e-5)
        assert torch.equal(asked.present, known.present)
        assert torch.equal(asked.degree, known.degree)
