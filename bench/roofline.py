# SPDX-License-Identifier: Apache-2.0
"""Draws roofline.svg: performance over arithmetic intensity, both logarithmic, one panel a thread count.

A kernel's ceiling is the lower of its unit's roof (f32, bf16, int8: by color) and the slope of read bandwidth. Filled, numbered
points are tern, the list beside the panel names them; hollow ones are peers on the same workload, joined to it by a thin line.
"""

import html
import math

COLORS = {"f32": "#1f5fbf", "bf16": "#7a3fbf", "int8": "#c2570c"}
INK, SOFT, GRID = "#1c2128", "#59636e", "#e4e7eb"
SHAPES = ("circle", "square", "triangle", "diamond", "cross")

WIDTH, PLOT_LEFT, PLOT_WIDTH = 1240, 74, 690
LIST_LEFT, LIST_WIDTH, ROW = 812, 404, 17


class Canvas:
    def __init__(self):
        self.parts = []

    def add(self, tag, body=None, **attributes):
        text = " ".join(f'{k.rstrip("_").replace("_", "-")}="{v:.1f}"' if isinstance(v, float) else f'{k.rstrip("_").replace("_", "-")}="{v}"'
                        for k, v in attributes.items())
        self.parts.append(f"<{tag} {text}/>" if body is None else f"<{tag} {text}>{body}</{tag}>")

    def text(self, x, y, words, size=12, fill=INK, anchor="start", weight="normal", **more):
        self.add("text", html.escape(words), x=float(x), y=float(y), font_size=size, fill=fill, text_anchor=anchor, font_weight=weight, **more)

    def line(self, x1, y1, x2, y2, stroke, width=1.0, **more):
        self.add("line", x1=float(x1), y1=float(y1), x2=float(x2), y2=float(y2), stroke=stroke, stroke_width=width, **more)


class Placer:
    """Where boxes lie already, so that the next label can keep clear of them."""

    def __init__(self, left, top, right, bottom):
        self.frame, self.taken = (left, top, right, bottom), []

    def block(self, x0, y0, x1, y1):
        self.taken.append((x0, y0, x1, y1))

    def cost(self, x0, y0, x1, y1):
        f = self.frame
        outside = max(0, f[0] - x0) + max(0, x1 - f[2]) + max(0, f[1] - y0) + max(0, y1 - f[3])
        overlap = sum(max(0, min(x1, b[2]) - max(x0, b[0])) * max(0, min(y1, b[3]) - max(y0, b[1])) for b in self.taken)
        return 100 * outside + overlap

    def near(self, x, y, width, height):
        """The center of the best free place around a point, nearest first."""
        best = None
        for ring, radius in enumerate((11, 16, 22, 30, 40, 52)):
            for step in range(16):
                angle = math.pi * (step / 8 - 0.5)
                cx, cy = x + (radius + width / 4) * math.cos(angle), y + radius * math.sin(angle)
                box = (cx - width / 2, cy - height / 2, cx + width / 2, cy + height / 2)
                score = self.cost(*box) + 0.7 * ring
                if best is None or score < best[0]:
                    best = (score, cx, cy, box)
            if best[0] < 0.7 * (ring + 1):
                break
        self.block(*best[3])
        return best[1], best[2], math.hypot(best[1] - x, best[2] - y)


def marker(canvas, shape, x, y, r, color):
    style = dict(fill="white", stroke=color, stroke_width=1.4)
    if shape == "circle":
        canvas.add("circle", cx=x, cy=y, r=float(r), **style)
    elif shape == "square":
        canvas.add("rect", x=x - r, y=y - r, width=2.0 * r, height=2.0 * r, **style)
    elif shape == "cross":
        canvas.add("path", d=f"M{x - r:.1f} {y - r:.1f}L{x + r:.1f} {y + r:.1f}M{x - r:.1f} {y + r:.1f}L{x + r:.1f} {y - r:.1f}", **style)
    else:
        up = 1.25 * r
        points = [(x, y - up), (x + up, y + r), (x - up, y + r)] if shape == "triangle" else [(x, y - up), (x + up, y), (x, y + up), (x - up, y)]
        canvas.add("polygon", points=" ".join(f"{a:.1f},{b:.1f}" for a, b in points), **style)


def family(result):
    """openblas_blocks is drawn as openblas."""
    return result.implementation.split("_")[0]


def nice(x):
    return f"{x:g}" if x < 1000 else f"{x / 1000:g}k"


def panel(canvas, top, height, threads, report, members, shapes):
    from report import natural, number, percent, UNITS
    roofs = {u: report.limit(n, threads) for u, n in UNITS.items()}
    bandwidth = report.limit("read_gb_s", threads)
    workloads = {}
    for r in members:
        workloads.setdefault((r.op, r.workload), []).append(r)
    keys = sorted(workloads, key=lambda k: (k[0], natural(k[1])))

    # Axes: whole decades around the points, the ridges of all roofs and the roofs themselves.
    xs = [r.intensity for r in members] + [v / bandwidth for v in roofs.values()]
    ys = [r.gflops for r in members] + list(roofs.values())
    x0, x1 = math.floor(math.log10(min(xs)) * 2 - 0.3) / 2, math.ceil(math.log10(max(xs)) * 2 + 0.3) / 2
    y0, y1 = math.floor(math.log10(min(ys)) * 2 - 0.2) / 2, math.log10(max(ys)) + 0.25
    left, right, head, foot = PLOT_LEFT, PLOT_LEFT + PLOT_WIDTH, top + 34, top + height - 44
    X = lambda v: left + (math.log10(v) - x0) / (x1 - x0) * (right - left)
    Y = lambda v: foot - (math.log10(v) - y0) / (y1 - y0) * (foot - head)

    canvas.text(left, top + 18, f"{threads} thread{'s' if threads > 1 else ''}", 15, weight=600)
    for decade in range(math.floor(x0), math.ceil(x1) + 1):
        for m in (1, 2, 5):
            v = m * 10.0**decade
            if x0 <= math.log10(v) <= x1:
                canvas.line(X(v), head, X(v), foot, GRID)
                canvas.text(X(v), foot + 16, nice(v), 11, SOFT, "middle")
    for decade in range(math.floor(y0), math.ceil(y1) + 1):
        for m in (1, 2, 5):
            v = m * 10.0**decade
            if y0 <= math.log10(v) <= y1:
                canvas.line(left, Y(v), right, Y(v), GRID)
                canvas.text(left - 8, Y(v) + 4, nice(v), 11, SOFT, "end")
    canvas.add("rect", x=float(left), y=float(head), width=float(right - left), height=float(foot - head), fill="none", stroke="#c3c9d0")
    canvas.text((left + right) / 2, foot + 36, "arithmetic intensity, operations per byte of memory traffic", 12, SOFT, "middle")
    y = (head + foot) / 2
    canvas.text(left - 48, y, "GFLOP/s (int8: GOP/s)", 12, SOFT, "middle", transform=f"rotate(-90 {left - 48} {y:.1f})")

    placer = Placer(left + 4, head + 2, right - 2, foot - 2)
    top_roof = max(roofs.values())
    begin = max(10**x0, 10**y0 / bandwidth)
    canvas.line(X(begin), Y(begin * bandwidth), X(top_roof / bandwidth), Y(top_roof), SOFT, 1.8)
    slope = math.degrees(math.atan2(Y(1) - Y(10), X(10) - X(1)))
    for r in members:
        placer.block(X(r.intensity) - 5, Y(r.gflops) - 5, X(r.intensity) + 5, Y(r.gflops) + 5)
    labels = []  # of the roofs, drawn last
    along = lambda at: [(X(at) + (step - 6) * 14 * math.cos(math.radians(slope)), Y(at * bandwidth) - 11 - (step - 6) * 14 *
                         math.sin(math.radians(slope))) for step in range(13)]
    places = [begin * (top_roof / bandwidth / begin)**(0.16 + 0.02 * t) for t in range(35)]
    at = min(places, key=lambda at: sum(placer.cost(x - 8, y - 8, x + 8, y + 8) for x, y in along(at)))
    for x, y in along(at):  # the rotated label, as small boxes along the slope
        placer.block(x - 8, y - 8, x + 8, y + 8)
    bx, by = X(at), Y(at * bandwidth) - 7
    labels.append((bx, by, f"read bandwidth {number(bandwidth)} GB/s", SOFT, "middle", dict(transform=f"rotate({-slope:.1f} {bx:.1f} {by:.1f})")))
    for unit, roof in roofs.items():
        canvas.line(X(roof / bandwidth), Y(roof), right, Y(roof), COLORS[unit], 1.8)
        label = f"{unit} peak {number(roof, 4)} {'GOP/s' if unit == 'int8' else 'GFLOP/s'}"
        x = X(roof / bandwidth) + 10
        labels.append((x, Y(roof) - 6, label, COLORS[unit], "start", {}))
        placer.block(x, Y(roof) - 18, x + 6.8 * len(label), Y(roof) - 3)

    for key in keys:
        group = workloads[key]
        heights = [Y(r.gflops) for r in group]
        if len(group) > 1:
            canvas.line(X(group[0].intensity), min(heights), X(group[0].intensity), max(heights), "#aab2bb", 0.8)
    for key in keys:
        for r in workloads[key]:
            if r.implementation != "tern":
                marker(canvas, shapes[family(r)], X(r.intensity), Y(r.gflops), 3.6, COLORS.get(r.unit, SOFT))
    for key in keys:
        for r in workloads[key]:
            if r.implementation == "tern":
                canvas.add("circle", cx=X(r.intensity), cy=Y(r.gflops), r=4.8, fill=COLORS.get(r.unit, SOFT), stroke="white", stroke_width=1.2)
    for i, key in enumerate(keys, 1):
        for r in workloads[key]:
            if r.implementation == "tern":
                x, y = X(r.intensity), Y(r.gflops)
                width = 7.0 * len(str(i)) + 3
                cx, cy, distance = placer.near(x, y, width, 13)
                if distance > 17:
                    canvas.line(x, y, cx, cy, "#8c959f", 0.7)
                canvas.add("rect", x=cx - width / 2, y=cy - 6.5, width=width, height=13.0, rx=2, fill="white", fill_opacity=0.85)
                canvas.text(cx, cy + 4, str(i), 11, COLORS.get(r.unit, SOFT), "middle", 600)

    for x, y, words, color, anchor, more in labels:
        canvas.text(x, y, words, 12, color, anchor, 600, paint_order="stroke", stroke="white", stroke_width=3, **more)

    # The list: number, name, and a bar of how much of its limit each reaches.
    y, op = head + 2, None
    bar = LIST_LEFT + LIST_WIDTH - 104
    canvas.text(bar, top + 18, "of its limit", 11, SOFT)
    for i, key in enumerate(keys, 1):
        if key[0] != op:
            op = key[0]
            y += ROW
            canvas.text(LIST_LEFT, y, op, 12, INK, weight=600)
        y += ROW
        tern = next((r for r in workloads[key] if r.implementation == "tern"), None)
        color = COLORS.get(tern.unit, SOFT) if tern else SOFT
        canvas.text(LIST_LEFT + 22, y, str(i), 11, color, "end", 600)
        name = key[1] if len(key[1]) <= 40 else key[1][:39] + "…"
        canvas.text(LIST_LEFT + 30, y, name, 11)
        if tern:
            canvas.add("rect", x=float(bar), y=y - 9.0, width=64.0, height=9.0, fill=GRID)
            canvas.add("rect", x=float(bar), y=y - 9.0, width=64.0 * min(1.0, tern.of_limit), height=9.0, fill=color)
            canvas.text(bar + 102, y, percent(tern.of_limit), 11, INK, "end")


def roofline(report):
    usable = [r for r in report.results if not r.error and r.gflops > 0 and r.gb_s > 0 and (r.implementation == "tern" or r.is_peer)]
    counts = sorted({r.threads for r in usable})
    peers = sorted({family(r) for r in usable if r.implementation != "tern"})
    shapes = {p: SHAPES[i % len(SHAPES)] for i, p in enumerate(peers)}
    canvas = Canvas()
    cpu = report.context.get("machine.cpu", "")
    canvas.text(PLOT_LEFT, 34, "Where each kernel stands against the machine", 20, weight=600)
    canvas.text(PLOT_LEFT, 55, f"{cpu}, {report.context.get('date', '')[:10]}. Color: the arithmetic unit that limits a workload.", 12, SOFT)
    x = float(PLOT_LEFT + 6)
    canvas.add("circle", cx=x, cy=74.0, r=4.8, fill=INK)
    canvas.text(x + 10, 78, "tern", 12)
    x += 58
    for p in peers:
        marker(canvas, shapes[p], x, 74.0, 3.8, INK)
        canvas.text(x + 10, 78, p, 12)
        x += 30 + 7.2 * len(p)
    top = 100
    if not usable:
        canvas.text(PLOT_LEFT, top + 20, "No result has both GFLOPS and GB_s.", 13, SOFT)
        top += 60
    for threads in counts:
        members = [r for r in usable if r.threads == threads]
        names = {(r.op, r.workload) for r in members}
        height = max(520, 60 + ROW * (len(names) + len({n[0] for n in names})))
        panel(canvas, top, height, threads, report, members, shapes)
        top += height + 26
    body = "\n".join(canvas.parts)
    return (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {top}" width="{WIDTH}" height="{top}" '
            f'font-family="system-ui, -apple-system, \'Segoe UI\', \'DejaVu Sans\', sans-serif">\n'
            f'<rect width="{WIDTH}" height="{top}" fill="white"/>\n{body}\n</svg>\n')
