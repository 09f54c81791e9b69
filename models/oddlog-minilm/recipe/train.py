"""Fine-tunes the pruned MiniLM as an NLI cross-encoder on (log line, hypothesis) pairs, as oddlog serves them.

The loss is on the difference of the two hypotheses' entailment logits (what the server turns into a score) plus plain entailment
per pair (what multi-label mode needs).
"""
import argparse
import copy
import json
import math
import os
import random
import tempfile
import time

import numpy as np
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
import torch.nn.functional as F
from transformers import BertConfig, BertForSequenceClassification
from safetensors.torch import load_file

import corpus
import topics
import vocab

SYNC = 4


def arguments():
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("--base", required=True, help="folder with all-MiniLM-L6-v2's model.safetensors, config.json, tokenizer.json")
    p.add_argument("--out", required=True)
    p.add_argument("--mined", default=os.path.join(corpus.HERE, "mined.tsv.gz"))
    p.add_argument("--avoid", nargs="*", default=[], help="evaluation files (.gz logs, .tsv) no training text may share four words with")
    p.add_argument("--per-template", type=int, default=10)
    p.add_argument("--calm-factor", type=float, default=1.0, help="how many times more lines a calm template gives")
    p.add_argument("--dense-factor", type=float, default=1.0, help="how many times more lines a template gives of those in which values decide, or must not")
    p.add_argument("--epochs", type=float, default=1.0)
    p.add_argument("--minutes", type=float, default=0, help="stop the schedule at this many minutes of training (0: by epochs)")
    p.add_argument("--init", help="folder of an earlier stage: its encoder and head, with this run's vocabulary")
    p.add_argument("--ema", type=float, default=0.97, help="decay of the weight average, which takes a step every SYNC steps")
    p.add_argument("--snapshot", type=int, default=0, help="write the averaged weights to --out every so many steps")
    p.add_argument("--warmup", type=int, default=60)
    p.add_argument("--min-lr", type=float, default=0.02, help="share of --lr left at the end")
    p.add_argument("--batch", type=int, default=16, help="lines per step; each is two pairs")
    p.add_argument("--lr", type=float, default=1.5e-4)
    p.add_argument("--warning", type=float, default=0.70)
    p.add_argument("--verdict-share", type=float, default=1.0, help="verdict pairs per template line")
    p.add_argument("--topic-share", type=float, default=1.0, help="topic choices per bad line, on average")
    p.add_argument("--calm-share", type=float, default=0.3, help="topic choices per calm line, on average")
    p.add_argument("--mined-share", type=float, default=1.0, help="share of the mined statements this stage sees")
    p.add_argument("--mined-fills", type=int, default=1, help="lines of each mined statement that has slots")
    p.add_argument("--twin-weight", type=float, default=0.0, help="weight of the squared distance between the logits of two lines of one source")
    p.add_argument("--nli-weight", type=float, default=0.3)
    p.add_argument("--vocab-size", type=int, default=12000)
    p.add_argument("--max-len", type=int, default=96)
    p.add_argument("--seed", type=int, default=7)
    p.add_argument("--workers", type=int, default=2, help="processes of one thread each; they share every step's gradient")
    return p.parse_args()


def load_pruned(base, keep, init=None):
    """MiniLM with the embedding rows of `keep` and a fresh 2-label head, or the encoder and head of an earlier stage."""
    c = BertConfig.from_pretrained(base)
    c.vocab_size, c.num_labels = len(keep), 2
    c.hidden_dropout_prob = c.attention_probs_dropout_prob = 0.0
    c.id2label, c.label2id = {0: "entailment", 1: "not_entailment"}, {"entailment": 0, "not_entailment": 1}
    c.architectures, c.pad_token_id = ["BertForSequenceClassification"], 0
    c._attn_implementation = "eager"
    model = BertForSequenceClassification(c)
    state = load_file(os.path.join(base, "model.safetensors"))
    state = {("bert." + k if not k.startswith("bert.") else k): v.float() for k, v in state.items() if not k.endswith("position_ids")}
    state["bert.embeddings.word_embeddings.weight"] = state["bert.embeddings.word_embeddings.weight"][torch.tensor(keep)]
    missing, unexpected = model.load_state_dict(state, strict=False)
    assert not unexpected and all(m.startswith("classifier") for m in missing), (missing, unexpected)
    if init:
        stage = load_file(os.path.join(init, "model.safetensors"))
        model.load_state_dict({k: v for k, v in stage.items() if "word_embeddings" not in k}, strict=False)
    for p in model.bert.embeddings.parameters():
        p.requires_grad_(False)
    return model


class Encoder:
    """Premise and hypothesis ids joined by hand; the premise is cut, the hypothesis never."""

    def __init__(self, tok, max_len):
        self.tok, self.max_len, self.cache = tok, max_len, {}
        self.cls, self.sep = tok.token_to_id("[CLS]"), tok.token_to_id("[SEP]")

    def hyp(self, text):
        if text not in self.cache:
            self.cache[text] = self.tok.encode(text, add_special_tokens=False).ids
        return self.cache[text]

    def batch(self, premises, hyps):
        rows = []
        for p, h in zip(premises, hyps):
            h = self.hyp(h)
            p = p[:self.max_len - 3 - len(h)]
            rows.append(([self.cls] + p + [self.sep], h + [self.sep]))
        width = max(len(a) + len(b) for a, b in rows)
        ids, mask, types = (torch.zeros(len(rows), width, dtype=torch.long) for _ in range(3))
        for k, (a, b) in enumerate(rows):
            ids[k, :len(a) + len(b)] = torch.tensor(a + b)
            mask[k, :len(a) + len(b)] = 1
            types[k, len(a):len(a) + len(b)] = 1
        return ids, mask, types


def entailment(model, enc, premises, hyps, grad=False):
    ids, mask, types = enc.batch(premises, hyps)
    with torch.set_grad_enabled(grad), torch.autocast("cpu", dtype=torch.bfloat16):
        return model(input_ids=ids, attention_mask=mask, token_type_ids=types).logits.float()


def scores(model, enc, ids, template, labels):
    """Entailment logits [lines, labels], batched by length."""
    out = np.zeros((len(ids), len(labels)), dtype=np.float32)
    order = sorted(range(len(ids)), key=lambda i: len(ids[i]))
    for s in range(0, len(order), 48):
        part = order[s:s + 48]
        z = entailment(model, enc, [ids[i] for i in part for _ in labels], [template.format(l) for _ in part for l in labels])
        out[part] = z[:, 0].reshape(len(part), len(labels)).numpy()
    return out


def steps_of_epoch(r, lines, ids, a):
    """Batches of near length; each item is (line index, hypotheses, target over them): two for a verdict, four for a choice of topic.
    Two lines of one source and one target have the same hypotheses and stand one after the other."""
    items, waiting = [], {}
    for i, l in enumerate(lines):
        if not l.topic or r.random() < a.verdict_share:
            twin = waiting.pop((l.source, l.target), None) if a.twin_weight else None
            if twin is None:
                waiting[l.source, l.target] = unit = [(i, topics.verdict_pair(r), [l.target, 1 - l.target])]
                items.append(unit)
            else:
                twin.append((i, twin[0][1], twin[0][2]))
        if l.topic and 0.1 < l.target < 0.9:
            continue
        bad = l.target > 0.5
        for _ in range(int((a.topic_share if bad else a.calm_share) + r.random()) if l.topic else 0):
            items.append([(i, *topics.choice(r, bad, l.topic))])
    r.shuffle(items)
    out = []
    for s in range(0, len(items), a.batch * 40):
        chunk = sorted(items[s:s + a.batch * 40], key=lambda unit: max(len(ids[x[0]]) for x in unit))
        batch = []
        for unit in chunk:
            batch += unit
            if len(batch) >= a.batch:
                out.append(batch)
                batch = []
        out += [batch] if batch else []
    r.shuffle(out)
    return out


def loss_of(model, enc, ids, batch, nli_weight, twin_weight=0.0):
    """Cross entropy of the choice among an item's hypotheses (as the server scores it) plus entailment of each pair by itself; lines of
    one source are to score alike, which templates rest on."""
    z = entailment(model, enc, [ids[i] for i, h, _ in batch for _ in h], [h for _, hs, _ in batch for h in hs], grad=True)
    width = max(len(h) for _, h, _ in batch)
    target = torch.zeros(len(batch), width)
    at = 0
    parts, truth, mask = [], [], []
    for k, (_, h, t) in enumerate(batch):
        parts.append(F.pad(z[at:at + len(h), 0], (0, width - len(h)), value=-30.0))
        target[k, :len(h)] = torch.tensor(t)
        # A topic that may also be true says nothing about entailment by itself; a verdict's target does.
        truth += t if len(h) == 2 else [float(j == 0) for j in range(len(h))]
        mask += [1.0] * 2 if len(h) == 2 else [float(j == 0 or t[j] == 0) for j in range(len(h))]
        at += len(h)
    logits = torch.stack(parts)
    choice = -(target * F.log_softmax(logits, dim=1)).sum(1).mean()
    alone = F.binary_cross_entropy_with_logits(z[:, 0] - z[:, 1], torch.tensor(truth), reduction="none")
    loss = choice + nli_weight * (alone * torch.tensor(mask)).mean()
    twins = [k for k in range(1, len(batch)) if batch[k][1] is batch[k - 1][1]]
    if twins and twin_weight:
        logit = logits[:, 0] - logits[:, 1]
        loss = loss + twin_weight * F.huber_loss(logit[twins], logit[[k - 1 for k in twins]], reduction="sum") / len(batch)
    return loss, len(z)


def validate(model, enc, lines, ids):
    from sklearn.metrics import roc_auc_score
    hard = [(i, l) for i, l in enumerate(lines) if l.topic and (l.target > 0.9 or l.target < 0.1)]
    z = scores(model, enc, [ids[i] for i, _ in hard], topics.SERVED[0], topics.SERVED[1:])
    d, y = z[:, 0] - z[:, 1], np.array([l.target > 0.5 for _, l in hard])
    tp, fp, fn = ((d >= 0) & y).sum(), ((d >= 0) & ~y).sum(), ((d < 0) & y).sum()
    m = {"templates_f1": 2 * tp / (2 * tp + fp + fn), "templates_auroc": roc_auc_score(y, d), "templates_false_alarms": fp / (~y).sum(), "templates_recall": tp / y.sum()}
    mined = [(i, l) for i, l in enumerate(lines) if not l.topic and (l.target > 0.9 or l.target < 0.15)]
    if mined:
        z = scores(model, enc, [ids[i] for i, _ in mined], topics.SERVED[0], topics.SERVED[1:])
        m["mined_auroc"] = roc_auc_score([l.target > 0.5 for _, l in mined], z[:, 0] - z[:, 1])
    six = {"sec": "a security threat", "hw": "a hardware failure", "net": "a network problem", "auth": "an authentication failure", "perf": "a performance problem", "normal": "normal operation"}
    pick = [(i, l.topic if l.target > 0.5 else "normal") for i, l in hard if l.target < 0.5 or l.topic in six]
    z = scores(model, enc, [ids[i] for i, _ in pick], topics.SERVED[0], list(six.values()))
    right = {}
    for (_, t), k in zip(pick, z.argmax(1)):
        right.setdefault(t, []).append(list(six)[k] == t)
    m["topics_of_6"] = float(np.mean([np.mean(v) for v in right.values()]))
    return {k: round(float(v), 4) for k, v in m.items()}


def save(model, tok, folder, metrics):
    tmp = folder + ".tmp"
    model.save_pretrained(tmp)
    tok.save(os.path.join(tmp, "tokenizer.json"))
    json.dump({"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": 512, "cls_token": "[CLS]", "sep_token": "[SEP]", "pad_token": "[PAD]",
               "unk_token": "[UNK]", "mask_token": "[MASK]", "model_input_names": ["input_ids", "token_type_ids", "attention_mask"]},
              open(os.path.join(tmp, "tokenizer_config.json"), "w"), indent=1)
    json.dump(metrics, open(os.path.join(tmp, "metrics.json"), "w"), indent=1)
    if os.path.isdir(folder):
        os.rename(folder, f"{folder}.old{int(time.time())}")
    os.rename(tmp, folder)


def share_parameters(params, workers):
    """Averages the parameters over the workers (local SGD: every SYNC steps, so that a slow core stalls nobody)."""
    if workers == 1:
        return
    with torch.no_grad():
        flat = torch.cat([p.reshape(-1) for p in params])
        dist.all_reduce(flat)
        flat /= workers
        at = 0
        for p in params:
            p.copy_(flat[at:at + p.numel()].view_as(p))
            at += p.numel()


def agree(progress, workers):
    """The largest progress of any worker: all stop at the same step."""
    if workers == 1:
        return progress
    t = torch.tensor([progress])
    dist.all_reduce(t, op=dist.ReduceOp.MAX)
    return t.item()


def work(rank, a, rendezvous):
    torch.set_num_threads(1)
    torch.manual_seed(a.seed)
    if a.workers > 1:
        dist.init_process_group("gloo", store=dist.FileStore(rendezvous, a.workers), rank=rank, world_size=a.workers)
    say = print if rank == 0 else lambda *_, **__: None
    r = random.Random(a.seed)
    avoid = corpus.Avoid(a.avoid)
    lines = corpus.synthetic(r, a.per_template, avoid, a.calm_factor, a.dense_factor) + corpus.mined(r, a.mined, avoid, a.warning, a.mined_share, fills=a.mined_fills)
    phrases = [t.format(p) for t in topics.TEMPLATES for v in topics.TOPICS.values() for p in v] + [t.format(p) for t in topics.TEMPLATES for pair in topics.PAIRS for p in pair]
    tok, keep = vocab.prune(os.path.join(a.base, "tokenizer.json"), [l.text for l in lines] + phrases * 2, a.vocab_size)
    ids = [e.ids for e in tok.encode_batch([l.text for l in lines], add_special_tokens=False)]
    print(f"{len(lines)} lines, {np.mean([len(x) for x in ids]):.1f} pieces on average, {np.mean([1 in x for x in ids]):.4f} with [UNK]")
    train = [k for k, l in enumerate(lines) if not l.held_out]
    valid = [k for k, l in enumerate(lines) if l.held_out]
    r.shuffle(valid)
    valid = valid[:1200]
    model, enc = load_pruned(a.base, keep, a.init), Encoder(tok, a.max_len)
    decay = [p for n, p in model.named_parameters() if p.requires_grad and p.dim() > 1]
    rest = [p for n, p in model.named_parameters() if p.requires_grad and p.dim() == 1]
    opt = torch.optim.AdamW([{"params": decay, "weight_decay": 0.01}, {"params": rest, "weight_decay": 0.0}], lr=a.lr, betas=(0.9, 0.98), eps=1e-6, fused=True)
    ema = copy.deepcopy(model)
    named = dict(ema.named_parameters())
    averaged = [named[n] for n, p in model.named_parameters() if p.requires_grad and p.dim() > 1] + [named[n] for n, p in model.named_parameters() if p.requires_grad and p.dim() == 1]
    t0, step, seen, running = time.time(), 0, 0, None
    tl, ti = [lines[k] for k in train], [ids[k] for k in train]
    per_epoch = len(steps_of_epoch(random.Random(0), tl, ti, a))
    total = math.ceil(per_epoch * a.epochs / a.workers)
    model.train()
    done = False
    while not done:
        batches = steps_of_epoch(r, tl, ti, a)
        for batch in batches[rank:len(batches) - len(batches) % a.workers:a.workers]:
            if step % SYNC == 0:
                progress = step / total
                if a.minutes:
                    progress = agree(max(progress, (time.time() - t0) / 60 / a.minutes), a.workers)
            if progress >= 1:
                done = True
                break
            lr = a.lr * min(1, (step + 1) / a.warmup) * (a.min_lr + (1 - a.min_lr) * 0.5 * (1 + math.cos(math.pi * progress)))
            for g in opt.param_groups:
                g["lr"] = lr
            loss, n = loss_of(model, enc, ti, batch, a.nli_weight, a.twin_weight)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(decay + rest, 1.0)
            opt.step()
            opt.zero_grad(set_to_none=True)
            if (step + 1) % SYNC == 0:
                share_parameters(decay + rest, a.workers)
                with torch.no_grad():
                    d = min(a.ema, (step + 1) / (step + 20))
                    torch._foreach_lerp_(averaged, decay + rest, 1 - d)
            step, seen = step + 1, seen + n * a.workers
            running = loss.item() if running is None else 0.98 * running + 0.02 * loss.item()
            if step % 20 == 0:
                say(f"step {step}/{total} {progress:.2f} loss {running:.4f} {seen / (time.time() - t0):.0f} pairs/s {(time.time() - t0) / 60:.1f} min", flush=True)
            if a.snapshot and step % a.snapshot == 0 and rank == 0:
                save(ema, tok, a.out, {"step": step, "of": total, "loss": round(running, 4)})
    if rank:
        return
    ema.eval()
    metrics = validate(ema, enc, [lines[k] for k in valid], [ids[k] for k in valid])
    metrics |= {"minutes": round((time.time() - t0) / 60, 1), "pairs": seen, "lines": len(lines), "vocabulary": len(keep)}
    print(metrics)
    save(ema, tok, a.out, metrics)


def main():
    a = arguments()
    if a.workers == 1:
        return work(0, a, "")
    with tempfile.TemporaryDirectory() as d:
        mp.spawn(work, args=(a, os.path.join(d, "rendezvous")), nprocs=a.workers)


if __name__ == "__main__":
    main()
