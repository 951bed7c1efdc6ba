"""MAGNET's equations with dense matrices of float64, node by node and pair by pair: what the tests compare with."""

from itertools import combinations, product
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse as sp
import torch
import torch.nn.functional as F
from torch import Tensor

from modalmix.data.modality import Modality
from modalmix.data.split import TrainData
from modalmix.models.contract import Query, Triples
from modalmix.models.contract.prior import FilterConfig, FilterPrior
from modalmix.models.magnet import Magnet

USERS, ITEMS = 40, 30
EVERYBODY = Query(users=torch.arange(USERS))
TEMPLATES = {  # dominant, balanced, complementary, as the paper's three signals, as two and as four
    3: [
        *[[0.8, 0.1, 0.1], [0.1, 0.8, 0.1], [0.1, 0.1, 0.8]],
        *[[0.45, 0.45, 0.1], [0.45, 0.1, 0.45], [0.1, 0.45, 0.45]],
        *[[0.0, 0.5, 0.5], [0.5, 0.0, 0.5], [0.5, 0.5, 0.0]],
    ],
    2: [[0.8, 0.2], [0.2, 0.8], [0.5, 0.5], [0.0, 1.0], [1.0, 0.0]],
    4: [
        *[[0.8, *[0.2 / 3] * 3], [0.2 / 3, 0.8, *[0.2 / 3] * 2], [*[0.2 / 3] * 2, 0.8, 0.2 / 3], [*[0.2 / 3] * 3, 0.8]],
        *[[0.45, 0.45, 0.05, 0.05], [0.45, 0.05, 0.45, 0.05], [0.45, 0.05, 0.05, 0.45]],
        *[[0.05, 0.45, 0.45, 0.05], [0.05, 0.45, 0.05, 0.45], [0.05, 0.05, 0.45, 0.45]],
        *[[0, *[1 / 3] * 3], [1 / 3, 0, *[1 / 3] * 2], [*[1 / 3] * 2, 0, 1 / 3], [*[1 / 3] * 3, 0]],
    ],
}
OWN: dict[int, list[tuple[int, ...]]] = {
    3: [(0,), (1,), (2,), (0, 1), (0, 2), (1, 2), (0,), (1,), (2,)],
    2: [(0,), (1,), (0, 1), (0,), (1,)],
    4: [*[(0,), (1,), (2,), (3,)], *combinations(range(4), 2), *[(0,), (1,), (2,), (3,)]],
}


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
        modalities = [data.catalog.modality(name) for name in self.names]
        x = [torch.from_numpy(one.matrix()).double() for one in modalities]
        self.x = [F.normalize(one.nan_to_num(), dim=1) for one in x]
        self.present = torch.stack([one.any(dim=1) for one in self.x], dim=1)
        self.cosines = [self.similar(*both) for both in zip(modalities, self.x, strict=True)]
        if given := self.c.graph_weights:
            self.weights = torch.tensor([given[name] / sum(given.values()) for name in self.names]).double()
        else:
            found = [self.together(graph) for graph in self.cosines]
            beyond = [max(0.0, c - chance) for c, chance in found]
            shares = [e / sum(beyond) * e / c for e, (c, _) in zip(beyond, found, strict=True)]
            self.weights = torch.tensor(shares).double()

    def similar(self, modality: Modality, x: Tensor) -> Tensor:
        """The weights of the graph that came with a modality, where one did: of items that are there."""
        if modality.neighbors is None:
            return self.nearest(x)
        graph, there = torch.zeros(ITEMS, ITEMS).double(), x.any(dim=1)
        for i, place in product(range(ITEMS), range(self.c.neighbors)):
            j = int(modality.neighbors.rows[i, place])
            if j >= 0 and there[i] and there[j]:
                graph[i, j] = float(modality.neighbors.weights[i, place])
        return graph

    def nearest(self, x: Tensor) -> Tensor:
        """Cosines of each row's nearest, itself among them."""
        cosine = x @ x.T
        cosine[:, ~x.any(dim=1)] = -2.0
        best, found = cosine.topk(self.c.neighbors, dim=1)
        graph = torch.zeros_like(cosine).scatter(1, found, best.clamp(min=0.0))
        return graph * x.any(dim=1, keepdim=True)

    def together(self, graph: Tensor) -> tuple[float, float]:
        """Mean cosine of the users of neighbours, and of items that edges leave and others where edges arrive."""
        degree = self.r.sum(dim=0).clamp(min=1)
        cosine = self.r.T @ self.r / (degree[:, None] * degree).sqrt()
        i, j = (graph - torch.diag(graph.diagonal())).nonzero().T
        chance = [float(cosine[a, b]) for a in i for b in j if a != b]
        return float(cosine[i, j].mean()), sum(chance) / len(chance)

    def edges(self) -> tuple[Tensor, Tensor]:
        """P [users, items] and S [items, items], pair by pair."""
        s = torch.zeros(ITEMS, ITEMS).double()
        for weight, graph in zip(self.weights, self.cosines, strict=True):
            others = graph - torch.diag(graph.diagonal())
            s += weight * others / others.sum(dim=1, keepdim=True).clamp(min=1e-300)
        listed = sum((graph - torch.diag(graph.diagonal()) > 0).long() for graph in self.cosines)
        s = s * (listed >= self.c.edges.agree)
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
            layers = [torch.cat([self.p["users.weight"], self.p["items.weight"]]) * (self.degree > 0).unsqueeze(1)]
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
            a = self.p["items.weight"] * (self.degree[USERS:] > 0).unsqueeze(1)
            if self.c.purify:
                inner = self.x[k] @ self.p[f"project.{k}.weight"].T + self.p[f"project.{k}.bias"]
                a = a * torch.sigmoid(inner @ self.p[f"gate.{k}.weight"].T + self.p[f"gate.{k}.bias"])
            a = a * self.present[:, k : k + 1]
            listed = (graph > 0).double()
            found.append(normalized(listed + listed.T if self.c.both_ways else listed) @ a)
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
        zb, z = self.fused(self.views(self.r)), self.content()
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
                both = batch.user, USERS + batch.positive
                total += [self.contrast(views[0][rows], views[1][rows]) for rows in both]
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
