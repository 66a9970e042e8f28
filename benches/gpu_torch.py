#!/usr/bin/env python3
"""What PyTorch does on the same card: products, copies, and training steps of the kit's language models.

A JSON object per line, as soon as it is known. `benches/gpu.sh` runs it and puts the figures beside Thalweg's. It needs
torch and nothing else, and no network.

    gpu_torch.py --case matmul,copy                     torch.matmul of 4096³ and copy_ of 1 GiB
    gpu_torch.py --case gpt2_train --batch 4            training steps, eager and compiled, in f32 and mixed precision
    gpu_torch.py --case gpt2_train --losses 3 --reps 0  only losses; with --float64 as a file of references for `thalweg kit --refs`
    gpu_torch.py --device cpu --size 256 --mib 16       where there is no card

Weights and tokens are those of `src/kit`: functions of their names, the same to the last bit. Step s takes batch s mod 4.
"""
import argparse
import contextlib
import json
import math
import statistics
import sys
import time

import torch
import torch.nn.functional as F

# What the models are: `Gpt` in src/kit/models.rs and src/kit/gpt.rs.
MODELS = {
    "gpt_train": dict(model="gpt", layers=6, width=384, heads=6, vocabulary=65, context=128, tied=False, batch=8),
    "gpt2_train": dict(model="gpt2", layers=12, width=768, heads=12, vocabulary=50257, context=1024, tied=True, batch=4),
}
HALVES = {"f16": torch.float16, "bf16": torch.bfloat16}
DTYPES = {"f32": torch.float32, **HALVES}


# ---------------------------------------------------------------- numbers that are functions of a name
def signed(x):
    return x - (1 << 64) if x >= 1 << 63 else x


def words(name, n, device):
    """splitmix64 from the FNV-1a hash of `name`, as i64: products wrap, and shifts are made logical."""
    h = 0xCBF29CE484222325
    for b in name.encode():
        h = ((h ^ b) * 0x100000001B3) & ((1 << 64) - 1)
    shifted = lambda z, k: (z >> k) & ((1 << (64 - k)) - 1)
    z = torch.arange(1, n + 1, dtype=torch.int64, device=device) * signed(0x9E3779B97F4A7C15) + signed(h)
    z = (z ^ shifted(z, 30)) * signed(0xBF58476D1CE4E5B9)
    z = (z ^ shifted(z, 27)) * signed(0x94D049BB133111EB)
    return z ^ shifted(z, 31)


def uniform(name, shape, scale, device):
    z = words(name, math.prod(shape), device)
    r = ((z >> 40) & 0xFFFFFF).to(torch.float32) * 2.0**-24 * 2 - 1
    return (r * torch.tensor(scale, dtype=torch.float32, device=device)).reshape(shape)


def integers(name, shape, bound, device):
    z = words(name, math.prod(shape), device)
    return (((z >> 33) & 0x7FFFFFFF) % bound).reshape(shape)


def known_answers(device):
    have = uniform("mlp/x0", (3,), 1.0, device).tolist(), integers("mlp/y0", (8,), 10, device).tolist()
    want = [-0.51859534, -0.9399612, -0.16331267], [0, 0, 2, 8, 1, 3, 1, 3]
    if have[1] != want[1] or any(abs(a - b) > 1e-7 for a, b in zip(have[0], want[0])):
        sys.exit(f"the generator gives {have} on {device}, and should give {want}: figures would be of another model")


# ---------------------------------------------------------------- time
def repeats(args, step):
    """Seconds per call of `step`, repeat by repeat: as many calls as fill --rep-s, waited for at their end."""

    def repeat(calls):
        started = time.perf_counter()
        for _ in range(calls):
            step()
        if args.device == "cuda":
            torch.cuda.synchronize()
        return (time.perf_counter() - started) / calls

    repeat(1)  # compiles, where there is something to compile
    calls = max(1, round(args.rep_s / min(repeat(1), repeat(1))))
    return [repeat(calls) for _ in range(args.reps)]


def say(args, **line):
    print(json.dumps({**line, "device": args.device, "card": args.card, "torch": torch.__version__}), flush=True)


def figures(times, items, unit):
    median = statistics.median(times)
    return dict(median_s=median, min_s=min(times), reps=len(times), items_per_s=items / median, unit=unit)


# ---------------------------------------------------------------- products and copies
def products(args):
    n = args.size
    for precision, tf32 in [("f32", False), ("f32", True), ("f16", False), ("bf16", False)]:
        torch.set_float32_matmul_precision("high" if tf32 else "highest")
        a, b = (torch.rand(n, n, device=args.device).mul_(2).sub_(1).to(DTYPES[precision]) for _ in "ab")
        out = torch.empty_like(a)
        times = repeats(args, lambda: torch.matmul(a, b, out=out))
        name = "tf32" if tf32 else precision
        say(args, case="matmul", size=n, precision=name, **figures(times, 2 * n**3 / 1e9, "GFLOP"))
    torch.set_float32_matmul_precision("highest")


def copies(args):
    """What a copy reads and writes, both counted."""
    a = torch.ones(args.mib << 18, device=args.device)
    b = torch.empty_like(a)
    say(args, case="copy", mib=args.mib, **figures(repeats(args, lambda: b.copy_(a)), 2 * (args.mib << 20) / 1e9, "GB"))


# ---------------------------------------------------------------- language models
def parameters(of, device, dtype):
    """Uniform weights of deviation 0.02; biases 0, norms 1 and 0."""
    d, p = of["width"], {}
    drawn = lambda name, shape: uniform(f"{of['model']}/{name}", shape, 0.02 * 3**0.5, device).to(dtype)

    def linear(name, rows, columns):
        p[name + ".weight"] = drawn(name + ".weight", (rows, columns))
        p[name + ".bias"] = torch.zeros(rows, device=device, dtype=dtype)

    def norm(name):
        p[name + ".weight"] = torch.ones(d, device=device, dtype=dtype)
        p[name + ".bias"] = torch.zeros(d, device=device, dtype=dtype)

    # The specification of `gpt` names its table without `.weight`.
    p["wte.weight"] = drawn("wte.weight" if of["tied"] else "wte", (of["vocabulary"], d))
    p["wpe"] = drawn("wpe", (of["context"], d))
    for i in range(of["layers"]):
        norm(f"h{i}.ln1")
        linear(f"h{i}.qkv", 3 * d, d)
        linear(f"h{i}.proj", d, d)
        norm(f"h{i}.ln2")
        linear(f"h{i}.fc1", 4 * d, d)
        linear(f"h{i}.fc2", d, 4 * d)
    norm("lnf")
    if not of["tied"]:
        p["head.weight"] = drawn("head.weight", (of["vocabulary"], d))
    return {name: value.requires_grad_() for name, value in p.items()}


def loss_of(of, p, x, y):
    d, heads = of["width"], of["heads"]
    norm = lambda name, x: F.layer_norm(x, (d,), p[name + ".weight"], p[name + ".bias"], 1e-5)
    linear = lambda name, x: F.linear(x, p[name + ".weight"], p[name + ".bias"])
    b, t = x.shape
    h = p["wte.weight"][x] + p["wpe"][:t]
    for i in range(of["layers"]):
        qkv = linear(f"h{i}.qkv", norm(f"h{i}.ln1", h)).view(b, t, 3, heads, d // heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        a = F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).reshape(b, t, d)
        h = h + linear(f"h{i}.proj", a)
        h = h + linear(f"h{i}.fc2", F.gelu(linear(f"h{i}.fc1", norm(f"h{i}.ln2", h)), approximate="tanh"))
    logits = F.linear(norm("lnf", h), p["wte.weight"] if of["tied"] else p["head.weight"])
    return F.cross_entropy(logits.float().flatten(0, 1) if logits.dtype in HALVES.values() else logits.flatten(0, 1), y.flatten())


class Training:
    """A model, AdamW and four batches; `step` learns from the next one."""

    def __init__(self, args, of, mode, precision):
        dtype = torch.float64 if args.float64 else torch.float32
        self.args, self.half = args, HALVES.get(precision)
        self.p = parameters(of, args.device, dtype)
        fused = args.device == "cuda" and not args.float64
        self.adamw = torch.optim.AdamW(self.p.values(), 3e-4, betas=(0.9, 0.99), eps=1e-8, weight_decay=0.1, fused=fused)
        self.scaler = torch.amp.GradScaler(args.device, enabled=precision == "f16")
        self.loss = lambda x, y: loss_of(of, self.p, x, y)
        if mode == "compile":
            self.loss = torch.compile(self.loss, dynamic=False)
        rows = [integers(f"{of['model']}/tokens{j}", (of["batch"], of["length"] + 1), of["vocabulary"], args.device) for j in range(4)]
        self.batches = [(t[:, :-1].contiguous(), t[:, 1:].contiguous()) for t in rows]
        self.steps = 0

    def step(self):
        x, y = self.batches[self.steps % 4]
        self.steps += 1
        mixed = torch.autocast(self.args.device, dtype=self.half) if self.half else contextlib.nullcontext()
        with mixed:
            loss = self.loss(x, y)
        self.scaler.scale(loss).backward()
        self.scaler.step(self.adamw)
        self.scaler.update()
        self.adamw.zero_grad(set_to_none=True)
        return loss.detach()


def training(args, case):
    of = dict(MODELS[case])
    if case == "gpt2_train":
        of.update({k: v for k, v in dict(batch=args.batch, layers=args.layers).items() if v})
    of["length"] = (case == "gpt2_train" and args.context) or of["context"]
    began = time.monotonic()
    for mode, precision in [(m, p) for m in args.mode.split(",") for p in args.precision.split(",")]:
        name = dict(case=case, mode=mode, precision=precision)
        if time.monotonic() - began > args.limit:
            say(args, **name, skipped="no time left")
            continue
        # Figures that are there must not go down with one that cannot be had, as where there is no compiler.
        try:
            it = Training(args, of, mode, precision)
            losses = [float(it.step()) for _ in range(args.losses)]
            if args.float64:
                print(json.dumps({case: {"losses": losses}}), flush=True)
                return
            line = dict(batch=of["batch"], context=of["length"], layers=of["layers"], losses=losses)
            line["parameters"] = sum(v.numel() for v in it.p.values())
            if args.reps:
                line.update(figures(repeats(args, it.step), of["batch"] * of["length"], "token"))
            if args.device == "cuda":
                line["peak_gb"] = torch.cuda.max_memory_allocated() / 1e9
            say(args, **name, **line)
        except Exception as error:  # noqa: BLE001
            if args.float64:
                raise
            say(args, **name, failed=(str(error) or repr(error)).strip().splitlines()[0][:200])
        finally:
            it = None
            if args.device == "cuda":
                torch.cuda.empty_cache()
                torch.cuda.reset_peak_memory_stats()


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--case", default="matmul,copy,gpt_train,gpt2_train", help="which, of these")
    ap.add_argument("--device", default="cuda", choices=["cuda", "cpu"])
    ap.add_argument("--mode", default="eager,compile", help="of training: eager, compile or both")
    ap.add_argument("--precision", default="f32,bf16", help="of training: f32, bf16, f16, in this order")
    ap.add_argument("--size", type=int, default=4096, help="rows of matmul's matrices")
    ap.add_argument("--mib", type=int, default=1024, help="what is copied")
    ap.add_argument("--batch", type=int, help="sequences of a step of gpt2_train (4)")
    ap.add_argument("--context", type=int, help="tokens of each (1024)")
    ap.add_argument("--layers", type=int, help="of gpt2_train (12)")
    ap.add_argument("--losses", type=int, default=3, help="first steps, whose losses are printed")
    ap.add_argument("--float64", action="store_true", help="losses alone, in f64, as a file of references")
    ap.add_argument("--reps", type=int, default=5)
    ap.add_argument("--rep-s", type=float, default=0.4, help="seconds that a repeat should take")
    ap.add_argument("--limit", type=float, default=1e9, help="seconds after which no further training of a case begins")
    args = ap.parse_args()
    if args.device == "cuda" and not torch.cuda.is_available():
        sys.exit("this PyTorch sees no card: --device cpu runs it on the CPU")
    args.card = torch.cuda.get_device_name() if args.device == "cuda" else "cpu"
    cases = args.case.split(",")
    if unknown := [c for c in cases if c not in ("matmul", "copy", *MODELS)]:
        ap.error(f"there is no case {', '.join(unknown)}; there are matmul, copy, {', '.join(MODELS)}")
    wrong = [m for m in args.mode.split(",") if m not in ("eager", "compile")]
    wrong += [p for p in args.precision.split(",") if p not in DTYPES]
    if wrong:
        ap.error(f"neither a mode nor a precision: {', '.join(wrong)}")
    known_answers(args.device)
    for case in cases:
        {"matmul": products, "copy": copies}.get(case, lambda args: training(args, case))(args)


if __name__ == "__main__":
    main()
