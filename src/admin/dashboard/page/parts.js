// What the page is put together from: elements, figures as text, charts.
// Whatever comes from outside is set as text, never as markup.
"use strict";

const Parts = (() => {
  // An element with properties, attributes (a name with a dash or in `role`, `for`, `scope`, `title`) and children.
  function make(name, about = {}, ...children) {
    const element = document.createElement(name);
    for (const [key, value] of Object.entries(about)) {
      if (value === undefined || value === null) continue;
      if (key in element && !key.includes("-")) element[key] = value;
      else element.setAttribute(key, value);
    }
    element.append(...children.filter((child) => child !== null && child !== undefined));
    return element;
  }

  const byId = (id) => document.getElementById(id);

  // Sets a text only where it changed, so that a selection and a reader's place stay.
  function say(element, text, value) {
    if (element.textContent !== text) element.textContent = text;
    if (value !== undefined) element.dataset.value = value === null ? "" : String(value);
  }

  // Puts new children in only where what they are made of has changed.
  function renew(element, from, children) {
    const made = JSON.stringify(from);
    if (element.madeFrom === made) return;
    element.madeFrom = made;
    element.replaceChildren(...children());
  }

  const whole = new Intl.NumberFormat("en-US", { maximumFractionDigits: 0 });
  const number = (n) => (n === null || n === undefined ? "–" : whole.format(n));
  // Rounded down: 100 % is all.
  const percent = (ratio) => `${(Math.floor(ratio * 1000 + 1e-9) / 10).toFixed(1)} %`;
  const ratio = (of) => (of && of.looked > 0 ? percent(of.requests) : "–");
  const rate = (n) => (n === null ? "–" : n < 10 ? n.toFixed(1) : whole.format(Math.floor(n)));
  const colour = (of) => (!of || of.looked === 0 ? "dim" : of.requests >= 0.8 ? "good" : of.requests >= 0.5 ? "warn" : "bad");

  function bytes(n) {
    if (n === null || n === undefined) return "–";
    const units = ["B", "KiB", "MiB", "GiB", "TiB"];
    let at = 0;
    while (n >= 1024 && at < units.length - 1) { n /= 1024; at += 1; }
    return at === 0 ? `${n} B` : `${n.toFixed(1)} ${units[at]}`;
  }

  // A time that somebody waits for.
  function took(seconds) {
    if (seconds === null || seconds === undefined) return "–";
    if (seconds < 0.001) return `${Math.round(seconds * 1e6)} µs`;
    if (seconds < 0.01) return `${(seconds * 1e3).toFixed(2)} ms`;
    if (seconds < 1) return `${(seconds * 1e3).toFixed(0)} ms`;
    return `${seconds.toFixed(2)} s`;
  }

  // A time that goes by.
  function lasting(seconds) {
    const s = Math.floor(seconds);
    if (s < 1) return seconds > 0 ? took(seconds) : "0 s";
    if (s < 60) return `${s} s`;
    if (s < 3600) return `${Math.floor(s / 60)} min ${s % 60} s`;
    if (s < 86400) return `${Math.floor(s / 3600)} h ${Math.floor((s / 60) % 60)} min`;
    return `${Math.floor(s / 86400)} d ${Math.floor((s / 3600) % 24)} h`;
  }

  const clock = (ms) => new Date(ms).toLocaleTimeString([], { hour12: false });

  // A bar of parts: each a share from 0 to 1 and a class of colour.
  function bar(parts, about = {}) {
    const element = make("div", { className: "bar", ...about });
    for (const [share, kind] of parts) {
      const part = make("i", { className: kind });
      part.style.width = `${Math.max(0, Math.min(1, share)) * 100}%`;
      element.append(part);
    }
    return element;
  }

  // Counts by word, the largest first, each with a bar.
  function counts(words, kind) {
    const some = Object.entries(words || {}).filter(([, n]) => n > 0).sort((a, b) => b[1] - a[1]);
    if (some.length === 0) return make("p", { className: "none" }, "none");
    const most = some[0][1];
    return make("dl", { className: "count" }, ...some.slice(0, 10).flatMap(([word, n]) => [
      make("dt", { title: word }, word), bar([[n / most, kind]], { "aria-hidden": "true" }), make("dd", { className: "n" }, number(n)),
    ]));
  }

  // A small picture of the last minute: hits, misses and all else, one on the other.
  function spark(points) {
    const space = "http://www.w3.org/2000/svg";
    const svg = document.createElementNS(space, "svg");
    svg.setAttribute("class", "spark");
    svg.setAttribute("viewBox", "0 0 60 24");
    svg.setAttribute("preserveAspectRatio", "none");
    svg.setAttribute("aria-hidden", "true");
    const most = Math.max(1, ...points.map((point) => point.requests));
    points.slice(-60).forEach((point, at, all) => {
      const other = Math.max(0, point.requests - point.cached - point.missed);
      let below = 24;
      for (const [kind, n] of [["h", point.cached], ["m", point.missed], ["o", other]]) {
        const height = (n / most) * 24;
        if (height <= 0) continue;
        const part = document.createElementNS(space, "rect");
        below -= height;
        for (const [name, value] of [["x", 60 - all.length + at], ["y", below], ["width", 0.86], ["height", height]]) part.setAttribute(name, value.toFixed(2));
        part.setAttribute("class", kind);
        svg.append(part);
      }
    });
    return svg;
  }

  const ink = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

  const SERIES = [
    { name: "past the cache", ink: "--other", kind: "c-other", of: (p) => Math.max(0, p.requests - p.cached - p.missed), top: (p) => Math.max(p.requests, p.cached + p.missed) },
    { name: "missed", ink: "--miss", kind: "c-miss", of: (p) => p.missed, top: (p) => p.cached + p.missed },
    { name: "from the cache", ink: "--hit", kind: "c-hit", of: (p) => p.cached, top: (p) => p.cached },
  ];

  // A chart of points ({ at in ms, cached, missed, requests, fetched, each per second }).
  function chart(place, height, about) {
    let points = [];
    const box = make("div", { role: "img", "aria-label": about });
    const values = [...SERIES, { name: "to the origin", kind: "c-origin", of: (p) => p.fetched }].map((series) => ({ ...series, value: make("b") }));
    const moment = make("span", { className: "dim" });
    const legend = make("div", { className: "legend" }, ...values.map((series) => make("span", {}, make("i", { className: `swatch ${series.kind}` }), `${series.name} `, series.value)), moment);
    place.replaceChildren(box, legend);

    function tell(at) {
      const point = points[at ?? points.length - 1];
      for (const series of values) say(series.value, point ? rate(series.of(point)) : "–");
      say(moment, point && at !== undefined && at !== null ? clock(point.at) : "");
    }

    const line = { stroke: () => ink("--dim"), grid: { stroke: () => ink("--line"), width: 1 }, ticks: { show: false }, font: "12px system-ui, sans-serif" };
    // A step holds for the time that it was counted in: there was nothing between.
    const paths = uPlot.paths.stepped({ align: -1 });
    const plot = new uPlot({
      width: Math.max(200, box.clientWidth), height,
      // On the right there is room for half of the last moment.
      padding: [8, 30, 0, 0],
      legend: { show: false },
      cursor: { y: false, points: { show: false }, drag: { x: false, y: false } },
      scales: { x: { time: true }, y: { range: (_, __, max) => [0, Math.max(1, max * 1.08)] } },
      axes: [
        { ...line, values: (_, splits) => splits.map((s) => clock(s * 1000)), space: 90, size: 28 },
        { ...line, size: 52, values: (_, splits) => splits.map((n) => (n >= 1e6 ? `${n / 1e6}M` : n >= 1e3 ? `${n / 1e3}k` : `${n}`)) },
      ],
      series: [
        {},
        ...SERIES.map((series) => ({ stroke: () => ink(series.ink), fill: () => ink(series.ink), width: 0, paths, points: { show: false } })),
        { stroke: () => ink("--origin"), width: 1.6, paths, points: { show: false } },
      ],
      hooks: { setCursor: [(u) => tell(u.cursor.idx)] },
    }, [[], [], [], [], []], box);

    const resized = new ResizeObserver(() => plot.setSize({ width: Math.max(200, box.clientWidth), height }));
    resized.observe(box);

    return {
      show(now) {
        points = now;
        plot.setData([points.map((p) => p.at / 1000), ...SERIES.map((series) => points.map(series.top)), points.map((p) => p.fetched)]);
        tell(plot.cursor.idx);
      },
      repaint() { plot.redraw(); },
      end() { resized.disconnect(); plot.destroy(); },
    };
  }

  return { make, byId, say, renew, number, percent, ratio, rate, colour, bytes, took, lasting, clock, bar, counts, spark, chart };
})();
