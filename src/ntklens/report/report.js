"use strict";
(() => {
  const read = (id) => JSON.parse(document.getElementById(id).textContent);
  const families = read("data-families"), colours = read("data-colours");
  const root = document.documentElement;
  const wishesDark = matchMedia("(prefers-color-scheme: dark)");
  let dark = false, printing = false;
  const blocks = [];

  const pick = (key) => {
    const side = dark && !printing ? 1 : 0;
    if (key.place === null) { const c = colours.categories[side]; return c[key.number % c.length]; }
    const ramp = colours.ramp[side];
    return ramp[Math.round(key.place * (ramp.length - 1))];
  };
  const fade = (hex, alpha) => {
    const n = parseInt(hex.slice(1), 16);
    return `rgba(${n >> 16},${(n >> 8) & 255},${n & 255},${alpha})`;
  };
  const ink = (name) => getComputedStyle(root).getPropertyValue(name).trim();

  class Block {
    constructor(section) {
      this.section = section;
      this.family = families[section.dataset.family];
      this.hidden = new Set();
      this.seeds = false; this.xlog = null; this.ylog = null; this.near = false; this.variant = 0;
      this.grid = section.querySelector(".plots");
      this.chips = section.querySelector(".chips");
      this.select = section.querySelector("select.variant");
      if (this.select) this.select.addEventListener("change", () => this.choose(Number(this.select.value)));
      for (const button of section.querySelectorAll("button[data-do]"))
        button.addEventListener("click", () => this.act(button));
      this.choose(0);
    }

    get current() { return this.family.variants[this.variant]; }

    choose(number) {
      this.variant = number; this.hidden.clear();
      this.section.querySelectorAll("[data-variant]").forEach((e) => { e.hidden = Number(e.dataset.variant) !== number; });
      this.plots && this.plots.forEach((p) => Plotly.purge(p.div));
      this.grid.replaceChildren(); this.plots = [];
      this.xlog = this.ylog = null;
      for (const panel of this.current.panels) {
        const figure = document.createElement("figure"), div = document.createElement("div");
        div.className = "plot"; div.setAttribute("role", "img");
        div.setAttribute("aria-label", `${strip(panel.y)} against ${strip(panel.x)}. ${panel.note.map(strip).join("; ")}`);
        figure.append(div);
        if (panel.note.length) {
          const caption = document.createElement("figcaption");
          caption.innerHTML = panel.note.join("<br>");
          figure.append(caption);
        }
        if (panel.forest) div.style.height = `${forestHeight(panel.forest)}px`;
        this.grid.append(figure); this.plots.push({ div, panel });
      }
      this.grid.dataset.count = this.current.panels.some((p) => p.forest) ? "wide" : Math.min(3, this.plots.length);
      this.makeChips(); this.mark(); if (this.near) this.draw();
    }

    makeChips() {
      this.chips.replaceChildren();
      const keys = this.current.keys;
      this.chips.append(legend(this.current.marks));
      if (keys.length < 2) return;
      const title = document.createElement("span");
      title.className = "chips-title"; title.innerHTML = this.current.title; this.chips.append(title);
      for (const key of keys) {
        const chip = document.createElement("button");
        chip.type = "button"; chip.className = "chip"; chip.dataset.key = key.name;
        chip.innerHTML = `<i></i>${key.label}`;
        chip.title = "show or hide; double click: only this one";
        chip.addEventListener("click", () => { this.hidden.has(key.name) ? this.hidden.delete(key.name) : this.hidden.add(key.name); this.refresh(); });
        chip.addEventListener("dblclick", () => { this.hidden = new Set(keys.map((k) => k.name).filter((n) => n !== key.name)); this.refresh(); });
        this.chips.append(chip);
      }
      const all = document.createElement("button");
      all.type = "button"; all.className = "chip all"; all.textContent = "all / none";
      all.addEventListener("click", () => { this.hidden = this.hidden.size ? new Set() : new Set(keys.map((k) => k.name)); this.refresh(); });
      this.chips.append(all);
    }

    mark() {
      for (const chip of this.chips.querySelectorAll("[data-key]")) {
        const key = this.current.keys.find((k) => k.name === chip.dataset.key);
        chip.style.setProperty("--chip", pick(key));
        chip.setAttribute("aria-pressed", String(!this.hidden.has(key.name)));
      }
      const first = this.current.panels[0] || {};
      const on = { mean: !this.seeds, seeds: this.seeds, xlog: this.xlog ?? first.xlog ?? false, ylog: this.ylog ?? first.ylog ?? false };
      for (const button of this.section.querySelectorAll("button[data-do]"))
        button.setAttribute("aria-pressed", String(Boolean(on[button.dataset.do])));
    }

    act(button) {
      const pressed = button.getAttribute("aria-pressed") === "true";
      if (button.dataset.do === "mean") this.seeds = false;
      if (button.dataset.do === "seeds") this.seeds = true;
      if (button.dataset.do === "xlog") this.xlog = !pressed;
      if (button.dataset.do === "ylog") this.ylog = !pressed;
      this.refresh();
    }

    refresh() { this.mark(); if (this.near) this.draw(); }

    draw() {
      for (const { div, panel } of this.plots) {
        const traces = panel.cells ? [heat(panel.cells)] : panel.forest ? this.plant(panel.forest) : this.trace(panel);
        Plotly.react(div, traces, this.lay(panel), {
          responsive: true, displaylogo: false, locale: "en-US",
          toImageButtonOptions: { format: "png", scale: 3, filename: `${this.section.id}-${panel.name}` },
          modeBarButtons: [["toImage", { name: "download SVG", icon: Plotly.Icons.disk, click: (gd) => Plotly.downloadImage(gd, { format: "svg", filename: `${this.section.id}-${panel.name}` }) }], ["zoom2d", "pan2d", "resetScale2d"]],
        });
      }
    }

    trace(panel) {
      const keys = new Map(this.current.keys.map((k) => [k.name, k]));
      const xlog = this.xlog ?? panel.xlog, ylog = this.ylog ?? panel.ylog;
      const traces = [];
      const order = ["seed", "rival", "fit", "reference", "mean", "minimum"];
      for (const s of [...panel.series].sort((a, b) => order.indexOf(a.role) - order.indexOf(b.role))) {
        if (this.hidden.has(s.key)) continue;
        const lawful = s.points && (s.role === "seed" || s.role === "mean");
        if (s.role === "seed" && !this.seeds && !lawful) continue;
        if (s.role === "mean" && this.seeds && !s.points) continue;
        const key = keys.get(s.key), colour = pick(key);
        const x = s.start === undefined || !xlog ? s.x : s.x.map((v) => (v === 0 ? s.start : v));
        const single = this.current.keys.length < 2;
        const head = single ? "" : `<b>${this.current.title ? this.current.title + " " : ""}${key.label}</b><br>`;
        const values = `${panel.x} %{customdata[0]}<br>${panel.y} = %{y:.5~g}`;
        if (s.low && s.role !== "minimum" && !(s.points)) {
          const there = s.y.map((_, i) => i).filter((i) => s.low[i] !== null && s.high[i] !== null && (!ylog || s.low[i] > 0));
          traces.push({ type: "scatter", x: [...there, ...[...there].reverse()].map((i) => x[i]),
            y: [...there.map((i) => s.high[i]), ...[...there].reverse().map((i) => s.low[i])],
            fill: "toself", fillcolor: fade(colour, 0.18), line: { width: 0 }, mode: "lines", hoverinfo: "skip", showlegend: false });
        }
        const error = (i) => (s.low && s.low[i] !== null && s.role === "mean" ? ` ± ${short((s.high[i] - s.low[i]) / 2)}` : "");
        const custom = s.x.map((v, i) => [v === null ? "" : short(v), error(i), s.seeds ? `<br>seed ${s.seeds[i]}` : ""]);
        const trace = { type: "scatter", x, y: s.y, customdata: custom, name: strip(key.label), meta: { key: s.key, role: s.role }, showlegend: false,
          connectgaps: false, line: { color: colour, width: s.role === "seed" ? 1 : 2, dash: s.role === "reference" ? (s.dashed ? "dashdot" : "dot") : s.dashed ? "dash" : "solid" },
          hovertemplate: `${head}${values}%{customdata[1]}%{customdata[2]}${s.detail && s.role !== "mean" ? "<br>" + s.detail : ""}<extra>${s.role === "mean" ? (s.points ? "" : s.detail) : s.role}</extra>` };
        if (s.points) {
          trace.mode = "markers";
          trace.marker = { color: colour, symbol: colours.markers[key.number % colours.markers.length] + (s.hollow ? "-open" : ""), size: s.role === "seed" ? 5 : s.role === "minimum" ? 10 : 8,
            opacity: s.role === "seed" ? (this.seeds ? 0.75 : 0.3) : 1, line: s.hollow ? { width: 1.5, color: colour } : { width: s.role === "minimum" ? 1.5 : 0, color: ink("--paper") } };
          if (s.low) trace.error_y = { type: "data", symmetric: false, array: s.y.map((v, i) => s.high[i] - v), arrayminus: s.y.map((v, i) => v - s.low[i]), thickness: 1.3, width: 0, color: colour };
        } else {
          trace.mode = s.role === "mean" && !s.bare && s.y.length <= 14 ? "lines+markers" : "lines";
          trace.marker = { color: colour, size: 6, symbol: colours.markers[key.number % colours.markers.length] };
          if (s.role === "seed") trace.opacity = 0.6;
        }
        traces.push(trace);
      }
      return traces;
    }

    // One pair of axes for each column of a forest plot; all share the rows.
    plant(forest) {
      const keys = this.current.keys.filter((k) => !this.hidden.has(k.name)), traces = [];
      forest.columns.forEach((column, c) => keys.forEach((key) => {
        const colour = pick(key), all = this.current.keys.length, shift = all > 1 ? 0.36 * (key.number / (all - 1) - 0.5) : 0;
        const rows = column.values[key.name].map((v, i) => [v, i]).filter(([v]) => v[0] !== null);
        const end = (v, side) => Math.abs((v[side] ?? column.limits[side - 1]) - v[0]);
        traces.push({ type: "scatter", mode: "markers", showlegend: false, name: strip(key.label), meta: { key: key.name },
          xaxis: c ? `x${c + 1}` : "x", yaxis: "y", x: rows.map(([v]) => v[0]), y: rows.map(([, i]) => i + shift),
          error_x: { type: "data", symmetric: false, array: rows.map(([v]) => end(v, 2)), arrayminus: rows.map(([v]) => end(v, 1)), thickness: 1.5, width: 0, color: colour },
          marker: { color: colour, symbol: rows.map(([, i]) => (column.crossed[key.name][i] ? "x-thin" : colours.markers[key.number % colours.markers.length]) + (column.crossed[key.name][i] || column.hollow[key.name][i] ? "-open" : "")), size: rows.map(([, i]) => (forest.parts[i] ? 6 : 9)) },
          customdata: rows.map(([v, i]) => [forest.rows[i], v[1] === null ? "−∞" : short(v[1]), v[2] === null ? "∞" : short(v[2])]),
          hovertemplate: `<b>%{customdata[0]}</b>${all > 1 ? `, ${key.label}` : ""}<br>${column.label}: α = %{x:.3f} [%{customdata[1]}, %{customdata[2]}]${column.stated ? `<br>stated: ${column.stated}` : ""}<extra></extra>` });
      }));
      return traces;
    }

    layForest(layout, forest, axis) {
      const count = forest.columns.length, rows = forest.rows.length, room = 0.018;
      const width = (1 - room * (count - 1)) / count, soft = ink("--soft");
      layout.annotations = []; layout.shapes = [];
      layout.margin = { l: 10, r: 14, t: 74, b: 30 };
      layout.yaxis = { range: [rows - 0.4, -0.6], tickvals: forest.rows.map((_, i) => i), zeroline: false, showgrid: false, automargin: true, ticks: "", color: ink("--ink"),
        ticktext: forest.rows.map((row, i) => (forest.parts[i] ? `<span style="font-size:.85em">${row}</span>` : row)), fixedrange: true };
      forest.columns.forEach((column, c) => {
        const name = c ? `x${c + 1}` : "x", left = c * (width + room);
        layout[c ? `xaxis${c + 1}` : "xaxis"] = { ...axis("", false), domain: [left, left + width], anchor: "y", range: column.limits, nticks: 4, minor: {}, showgrid: false, zeroline: true, zerolinecolor: ink("--grid") };
        const head = (text, shift, size) => layout.annotations.push({ xref: `${name} domain`, yref: "paper", x: 0.5, y: 1, yanchor: "bottom", yshift: shift, text, showarrow: false, font: { size } });
        head(`<b>${column.label}</b>`, 16, 13); if (column.stated) head(column.stated, 1, 11);
        if (!column.stated) return;
        const [low, high] = column.bounds;
        layout.shapes.push({ type: "rect", xref: name, yref: "paper", x0: low ?? column.limits[0], x1: high ?? column.limits[1], y0: 0, y1: 1, fillcolor: fade("#888888", 0.15), line: { width: 0 }, layer: "below" });
        for (const bound of [low, high]) if (bound !== null)
          layout.shapes.push({ type: "line", xref: name, yref: "paper", x0: bound, x1: bound, y0: 0, y1: 1, line: { color: soft, width: 1, dash: "dash" }, layer: "below" });
      });
      forest.parts.forEach((part, i) => { if (!part && i) layout.shapes.push({ type: "line", xref: "paper", yref: "y", x0: 0, x1: 1, y0: i - 0.5, y1: i - 0.5, line: { color: ink("--grid"), width: 1 }, layer: "below" }); });
      return layout;
    }

    lay(panel) {
      const text = ink("--ink"), soft = ink("--soft"), grid = ink("--grid");
      const axis = (label, log) => ({ title: { text: label, standoff: 6, font: { size: 13 } }, type: log ? "log" : "linear", color: soft, gridcolor: grid, linecolor: soft,
        zeroline: false, showline: true, ticks: "outside", ticklen: 4, tickcolor: soft, automargin: true, exponentformat: "power", showexponent: "all", minorloglabels: "complete", minor: { ticks: log ? "outside" : "", ticklen: 2 } });
      const narrow = this.grid.clientWidth < 480;
      const layout = { font: { family: "system-ui, sans-serif", size: 12, color: text }, paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
        margin: { l: 56, r: 12, t: 14, b: 46 }, hovermode: "closest", showlegend: false, modebar: { bgcolor: "rgba(0,0,0,0)", color: soft, activecolor: text }, dragmode: narrow ? false : "zoom",
        uirevision: `${this.variant}`, hoverlabel: { bgcolor: ink("--card"), bordercolor: soft, font: { color: text } }, transition: { duration: 0 } };
      if (panel.cells) {
        layout.xaxis = { ...axis(panel.x, false), type: "category", showline: false, minor: {} };
        layout.yaxis = { ...axis(panel.y, false), type: "category", showline: false, minor: {} };
        layout.title = { text: panel.cells.label, font: { size: 14 }, x: 0.02, xanchor: "left" }; layout.margin.t = 36;
        return layout;
      }
      if (panel.forest) return this.layForest(layout, panel.forest, axis);
      const xlog = this.xlog ?? panel.xlog;
      layout.xaxis = { ...axis(panel.x, xlog), ...(panel.reversed ? { autorange: "reversed" } : {}) };
      layout.yaxis = axis(panel.y, this.ylog ?? panel.ylog);
      if (panel.ticks.length) { layout.xaxis.tickvals = panel.ticks; layout.xaxis.ticktext = panel.ticks.map(short); layout.xaxis.minor = {}; showTicks(layout.xaxis, panel); }
      else mark(layout.xaxis, panel.series.flatMap((s) => s.x));
      mark(layout.yaxis, panel.series.filter((s) => s.role !== "seed").flatMap((s) => s.y));
      const started = panel.series.find((s) => s.start !== undefined);
      if (xlog && started) start(layout.xaxis, panel, started.start);
      return layout;
    }
  }

  // What solid, dashed, band and dots stand for, whatever their colour.
  const legend = (marks) => {
    const list = document.createElement("span");
    list.className = "marks"; list.setAttribute("role", "list"); list.setAttribute("aria-label", "what lines and points stand for");
    for (const m of marks) {
      const item = document.createElement("span");
      item.setAttribute("role", "listitem");
      const dash = m.role === "reference" ? (m.dashed ? "6 3 1 3" : "1 3") : m.dashed ? "5 3" : "none", faint = m.role === "seed" ? 0.4 : 1;
      const band = m.band && !m.points ? '<rect x="0" y="3" width="26" height="8" fill="currentColor" opacity=".2"/>' : "";
      const bar = m.band && m.points ? '<path d="M13 1v12" stroke="currentColor"/>' : "";
      const drawn = m.points ? `${bar}<circle cx="13" cy="7" r="${m.role === "seed" ? 2 : 3.5}" fill="${m.hollow ? "none" : "currentColor"}" stroke="currentColor" opacity="${faint}"/>`
        : `${band}<path d="M0 7h26" stroke="currentColor" stroke-width="2" stroke-dasharray="${dash}" opacity="${faint}"/>`;
      item.innerHTML = `<svg viewBox="0 0 26 14" width="26" height="14" aria-hidden="true">${drawn}</svg><b>${m.label}</b>`;
      list.append(item);
    }
    return list;
  };
  const forestHeight = (forest) => 116 + forest.rows.length * 24;
  const strip = (html) => { const e = document.createElement("div"); e.innerHTML = html; return e.textContent; };
  const short = (v) => { const a = Math.abs(v); return a !== 0 && (a < 1e-3 || a >= 1e6) ? v.toExponential(3) : String(Number(v.toPrecision(5))); };
  // Ticks of a logarithmic axis that spans little: 1, 2, 5; else powers of ten.
  const mark = (axis, values) => {
    const there = values.filter((v) => v > 0);
    if (axis.type !== "log" || !there.length) return;
    let low = Infinity, high = 0;
    for (const v of there) { low = Math.min(low, v); high = Math.max(high, v); }
    const decades = Math.log10(high / low);
    axis.dtick = decades < 0.5 ? undefined : decades < 2 ? "D2" : Math.max(1, Math.ceil(decades / 6));
    if (high < 1e5 && low >= 1e-3) axis.exponentformat = "none";
  };
  // Slopes lie between the values of the axis, whose ends would not be numbered: it reaches to all its ticks.
  const showTicks = (axis, panel) => {
    const place = axis.type === "log" ? Math.log10 : (v) => v, [first, last] = [panel.ticks[0], panel.ticks[panel.ticks.length - 1]].map(place);
    let low = Infinity, high = -Infinity;
    for (const s of panel.series) for (const v of s.x) { low = Math.min(low, place(v)); high = Math.max(high, place(v)); }
    if (first >= low && last <= high || panel.reversed) return;
    const edge = 0.04 * (Math.max(last, high) - Math.min(first, low));
    axis.range = [Math.min(first, low) - edge, Math.max(last, high) + edge];
  };
  // 0 (the epoch at the start, a control) has no place on a logarithmic axis: it stands beside the first value, named 0.
  const start = (axis, panel, at) => {
    let high = 0;
    for (const s of panel.series) for (const v of s.x) if (v > high) high = v;
    const ticks = panel.ticks.filter((v) => v > 0), few = ticks.length, first = Math.ceil(Math.log10(2 * at) - 1e-9), step = Math.max(1, Math.ceil((Math.log10(high) - first) / 5));
    for (let power = first; !few && power <= Math.log10(high); power += step) ticks.push(10 ** power);
    axis.tickvals = [at, ...ticks]; axis.ticktext = ["0", ...ticks.map((v) => short(v))]; delete axis.dtick; axis.minor = {};
  };
  const heat = (cells) => {
    const ramp = colours.ramp[0];
    const z = cells.log ? cells.z.map((row) => row.map((v) => (v > 0 ? Math.log10(v) : null))) : cells.z;
    return { type: "heatmap", x: cells.x, y: cells.y, z, text: cells.text, texttemplate: "%{text}", showscale: false, xgap: 2, ygap: 2, hoverongaps: false,
      colorscale: ramp.map((c, i) => [i / (ramp.length - 1), c]), hovertemplate: "%{x}, %{y}: %{text}<extra></extra>" };
  };

  const redraw = (all) => { for (const block of blocks) { block.mark(); if (all) block.near = true; if (block.near) block.draw(); } };
  const paint = (value) => {
    dark = value; root.dataset.theme = dark ? "dark" : "light";
    const toggle = document.getElementById("theme");
    toggle.setAttribute("aria-pressed", String(dark)); toggle.textContent = dark ? "Light" : "Dark";
    redraw(false);
  };
  const remembered = () => { try { return localStorage.getItem("ntklens-theme"); } catch { return null; } };
  const remember = (value) => { try { localStorage.setItem("ntklens-theme", value); } catch { /* a page from disk may have no storage */ } };
  document.getElementById("theme").addEventListener("click", () => { paint(!dark); remember(dark ? "dark" : "light"); });
  wishesDark.addEventListener("change", (event) => { if (!remembered()) paint(event.matches); });
  paint(remembered() ? remembered() === "dark" : wishesDark.matches);

  // Only what is near the screen is drawn: a page of many runs opens at once.
  const watcher = new IntersectionObserver((entries) => {
    for (const entry of entries) {
      const block = blocks.find((b) => b.section === entry.target);
      if (entry.isIntersecting && !block.near) { block.near = true; block.draw(); }
    }
  }, { rootMargin: "600px" });
  for (const section of document.querySelectorAll("[data-family]")) { const block = new Block(section); blocks.push(block); watcher.observe(section); }
  addEventListener("beforeprint", () => { printing = true; root.dataset.print = "yes"; redraw(true); for (const d of document.querySelectorAll("details")) d.open = true; });
  addEventListener("afterprint", () => { printing = false; delete root.dataset.print; redraw(false); });
  window.ntklens = { blocks, drawAll: () => redraw(true) };

  for (const table of document.querySelectorAll("table.sortable")) {
    table.querySelectorAll("thead th").forEach((head, column) => {
      const button = head.querySelector("button");
      button.addEventListener("click", () => {
        const up = head.getAttribute("aria-sort") !== "ascending";
        table.querySelectorAll("thead th").forEach((h) => h.removeAttribute("aria-sort"));
        head.setAttribute("aria-sort", up ? "ascending" : "descending");
        const value = (row) => row.cells[column].dataset.value ?? row.cells[column].textContent;
        const rows = [...table.tBodies[0].rows].sort((a, b) => {
          const [p, q] = [value(a), value(b)], [m, n] = [Number(p), Number(q)];
          if (p === "" || q === "") return (p === "") - (q === "");
          return (Number.isNaN(m) || Number.isNaN(n) ? p.localeCompare(q) : m - n) * (up ? 1 : -1);
        });
        table.tBodies[0].append(...rows);
      });
    });
  }
  // Marks the part of the page that is read, in the contents at its side.
  const links = new Map([...document.querySelectorAll("nav.contents a")].map((a) => [a.hash.slice(1), a]));
  const spy = new IntersectionObserver((entries) => {
    for (const entry of entries) if (entry.isIntersecting) {
      links.forEach((a) => a.removeAttribute("aria-current"));
      links.get(entry.target.id)?.setAttribute("aria-current", "true");
    }
  }, { rootMargin: "-10% 0px -80% 0px" });
  links.forEach((_, id) => { const target = document.getElementById(id); if (target) spy.observe(target); });
})();
