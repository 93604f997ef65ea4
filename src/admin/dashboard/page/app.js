// The page: takes the figures as they come, shows them, and asks for purges and explanations.
"use strict";

(() => {
  const { make, byId, say, renew, number, percent, ratio, rate, colour, bytes, took, lasting, clock, bar, counts, spark, chart } = Parts;
  const KEPT = 60;
  const TOKEN = "larder-token";

  // --- what is known -------------------------------------------------------------------------------------------

  let latest = null;          // the last event
  let history = null;         // of all routes: { seconds, minutes } as points
  let sparks = new Map();     // route → points of the last minute
  let hour = false;           // which of the two the upper chart shows
  let traffic = null;
  const rows = new Map();     // route → what stands in the table
  let heard = 0;

  // --- talking to Larder ---------------------------------------------------------------------------------------

  function ask(path, options = {}) {
    const token = sessionStorage.getItem(TOKEN);
    const headers = { ...(token ? { Authorization: `Bearer ${token}` } : {}), ...(options.headers || {}) };
    return fetch(path, { cache: "no-store", credentials: "omit", ...options, headers });
  }

  function send(path, what) {
    // The field tells Larder that it is this page that asks: no other site's can send it.
    return ask(path, { method: "POST", headers: { "Content-Type": "application/json", "Larder-Dashboard": "1" }, body: JSON.stringify(what) });
  }

  const pause = (ms) => new Promise((done) => setTimeout(done, ms));

  async function listen() {
    for (;;) {
      const begun = Date.now();
      try {
        const answer = await ask("/events");
        if (answer.status === 401) {
          await token();
          continue;
        }
        if (!answer.ok) {
          const why = await answer.json().catch(() => ({}));
          state("lost", why.error || `status ${answer.status}`);
          await pause(5000);
          continue;
        }
        byId("locked").hidden = true;
        byId("board").hidden = false;
        await read(answer.body.pipeThrough(new TextDecoderStream()).getReader());
      } catch (_) {
        state("lost", "Larder does not answer; trying again");
      }
      // A stream ends by itself now and then, and is then asked for anew.
      await pause(Date.now() - begun > 5000 ? 0 : 2000);
    }
  }

  async function read(reader) {
    let rest = "";
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      const events = (rest + value).split("\n\n");
      rest = events.pop();
      for (const event of events) {
        const data = event.split("\n").find((line) => line.startsWith("data: "));
        if (data) hear(JSON.parse(data.slice(6)));
      }
    }
  }

  // Asks for the token until one has been given.
  function token() {
    const wrong = sessionStorage.getItem(TOKEN) !== null;
    sessionStorage.removeItem(TOKEN);
    byId("board").hidden = true;
    byId("locked").hidden = false;
    state("waiting", "locked");
    say(byId("token-said"), wrong ? "That is not its token." : "");
    byId("token-text").focus();
    return new Promise((given) => {
      byId("token").addEventListener("submit", (event) => {
        event.preventDefault();
        sessionStorage.setItem(TOKEN, byId("token-text").value.trim());
        byId("token-text").value = "";
        given();
      }, { once: true });
    });
  }

  function state(kind, text) {
    const element = byId("state");
    element.dataset.state = kind;
    say(element, text);
  }

  // --- an event ------------------------------------------------------------------------------------------------

  // Columns of counts as points per second.
  function points(columns, now) {
    return columns.at.map((at, i) => point(now - at, columns.took[i], (name) => columns[name][i]));
    function point(ago, seconds, of) {
      const each = (name) => of(name) / Math.max(1, seconds);
      return { at: latest.at_ms - ago * 1000, cached: each("cached"), missed: each("missed"), requests: each("requests"), fetched: each("fetched") };
    }
  }

  function hear(event) {
    const before = latest;
    latest = event;
    heard = Date.now();
    const uptime = event.stats.uptime_s;
    const seconds = before ? uptime - before.stats.uptime_s : 0;
    if (event.history) {
      const all = event.history.all;
      history = { seconds: points(all.seconds, uptime), minutes: points(all.minutes, uptime) };
      sparks = new Map(Object.entries(event.history.routes).map(([name, of]) => [name, points(of.seconds, uptime)]));
    } else if (before && seconds > 0) {
      const since = (now, then) => step(now, then, seconds, event.at_ms);
      keep(history.seconds, since(sums(event.stats.all), sums(before.stats.all)), event.at_ms);
      for (const row of event.routes) {
        const then = before.routes.find((other) => other.route === row.route);
        if (!then) continue;
        if (!sparks.has(row.route)) sparks.set(row.route, []);
        keep(sparks.get(row.route), since(sums(row), sums(then)), event.at_ms);
      }
    }
    const per = (now, then) => (before && seconds > 0 && now >= then ? (now - then) / seconds : null);
    show(event, before, per);
  }

  // What a step of a chart is made of; in a route and in all together the same.
  function sums(of) {
    const missed = of.missed ?? Object.values(of.misses).reduce((sum, n) => sum + n, 0);
    return { cached: of.hits.memory + of.hits.redis + of.stale, missed, requests: of.requests, fetched: of.origin_fetches };
  }

  function step(now, then, seconds, at) {
    const each = (name) => Math.max(0, now[name] - then[name]) / seconds;
    return { at, cached: each("cached"), missed: each("missed"), requests: each("requests"), fetched: each("fetched") };
  }

  function keep(list, point, now) {
    list.push(point);
    while (list.length > KEPT || (list.length > 0 && list[0].at < now - 61000)) list.shift();
  }

  function show(event, before, per) {
    const { stats } = event;
    state(event.stopping ? "stopping" : "live", event.stopping ? "stopping" : "live");
    say(byId("uptime"), `up ${lasting(stats.uptime_s)}`);
    say(byId("version"), `version ${event.version}`);
    tiles(stats, before && before.stats, per);
    advice(event.tune);
    if (!traffic) traffic = chart(byId("traffic"), 190, "Requests per second over the last minute or hour: from the cache, missed, past the cache, and to the origin");
    traffic.show(hour ? history.minutes : history.seconds);
    table(event, before, per);
    memory(stats);
    redis(stats);
    upstreams(stats.upstreams);
    purges(event.purges);
    slow(event);
  }

  function tiles(stats, before, per) {
    const { all } = stats;
    const shown = (id, window) => {
      const element = byId(id);
      say(element, ratio(all.hit_ratios[window]), all.hit_ratios[window].requests);
      return element;
    };
    shown("ratio-1m", "1m").className = `big ${colour(all.hit_ratios["1m"])}`;
    shown("ratio-1h", "1h");
    shown("ratio-all", "all");
    const minute = all.hit_ratios["1m"];
    say(byId("bytes-1m"), minute.looked > 0 ? percent(minute.bytes) : "–", minute.bytes);
    say(byId("rate"), rate(per(all.requests, before ? before.all.requests : 0)));
    say(byId("requests"), number(all.requests), all.requests);
    say(byId("active"), number(stats.active), stats.active);
    say(byId("failed"), number(stats.failed), stats.failed);
    byId("failed").className = stats.failed > 0 ? "bad" : "";
    for (const [id, of, part] of [["hit-p50", "hits", "p50_s"], ["hit-p99", "hits", "p99_s"], ["miss-p50", "misses", "p50_s"], ["miss-p99", "misses", "p99_s"]]) {
      say(byId(id), took(all.durations["1m"][of][part]), all.durations["1m"][of][part]);
    }
    say(byId("saved"), number(all.origin_requests_saved), all.origin_requests_saved);
    say(byId("saved-s"), lasting(all.origin_seconds_saved), all.origin_seconds_saved);
    say(byId("fetched"), rate(per(all.origin_fetches, before ? before.all.origin_fetches : 0)));
  }

  // --- what to tune --------------------------------------------------------------------------------------------

  function advice(tips) {
    byId("tune").classList.toggle("calm", tips.length === 0);
    const place = byId("advice");
    const shape = tips.map((tip) => [tip.route, tip.of, tip.reason, tip.line]);
    renew(place, shape, () => tips.length === 0
      ? [make("p", { className: "dim" }, "Nothing: of the last ten minutes, no setting would have saved the origin much.")]
      : tips.map((tip) => {
        const says = make("span");
        return make("div", { className: "tip" },
          make("p", {}, make("a", { href: "#routes", onclick: () => openRoute(tip.route) }, tip.route), ": ", says),
          make("div", { className: "set" }, make("code", {}, tip.line), make("span", { className: "dim" }, tip.table === "[route.cache]" && tip.route_line ? `${tip.table} of line ${tip.route_line}` : tip.table)),
          make("p", { className: "why" }, `${tip.reason}: ${tip.why}. Mind: ${tip.caution}.`));
      }));
    place.querySelectorAll(".tip").forEach((element, at) => {
      const tip = tips[at];
      say(element.querySelector("p > span"), `${number(tip.requests)} requests of the last ten minutes could have been hits, about ${lasting(tip.origin_s)} of the origin's time`);
    });
  }

  // --- routes --------------------------------------------------------------------------------------------------

  // Cells of a row, by the name that a narrow screen shows.
  const CELLS = [
    ["last minute", "broad"], ["req/s", "n"], ["hit 1m", "n"], ["hit 1h", "n"], ["memory", "n"], ["redis", "n"], ["stale", "n"],
    ["missed", "n"], ["mostly", ""], ["p99 hit", "n"], ["p99 miss", "n"], ["lifetime", "half"],
  ];

  function table(event, before, per) {
    const body = byId("route-rows");
    const known = new Set(event.routes.map((row) => row.route));
    for (const [name, row] of rows) {
      if (!known.has(name)) { shut(row); row.element.remove(); rows.delete(name); }
    }
    // In the order in which they miss, as of when the page was opened: rows that move cannot be read.
    const fresh = event.routes.filter((row) => !rows.has(row.route) && (row.config || row.requests > 0));
    fresh.sort((a, b) => b.missed - a.missed || b.requests - a.requests);
    for (const row of fresh) addRow(body, row.route);
    const first = event.tune[0] && event.tune[0].route;
    for (const row of event.routes) {
      const shown = rows.get(row.route);
      if (!shown) continue;
      shown.element.classList.toggle("marked", row.route === first);
      const then = before && before.routes.find((other) => other.route === row.route);
      const { cells } = shown;
      const put = (name, text, value) => say(cells.get(name), text, value);
      cells.get("last minute").replaceChildren(spark(sparks.get(row.route) || []));
      put("req/s", rate(then ? per(row.requests, then.requests) : null));
      for (const window of ["1m", "1h"]) {
        put(`hit ${window}`, ratio(row.hit_ratios[window]), row.hit_ratios[window].requests);
        cells.get(`hit ${window}`).className = `n ${colour(row.hit_ratios[window])}`;
      }
      put("memory", number(row.hits.memory), row.hits.memory);
      put("redis", number(row.hits.redis), row.hits.redis);
      put("stale", number(row.stale), row.stale);
      put("missed", number(row.missed), row.missed);
      put("mostly", row.top_miss_cause || (row.bypass > 0 ? "bypass" : "–"), row.top_miss_cause);
      put("p99 hit", took(row.durations["1m"].hits.p99_s), row.durations["1m"].hits.p99_s);
      put("p99 miss", took(row.durations["1m"].misses.p99_s), row.durations["1m"].misses.p99_s);
      put("lifetime", lifetime(row.config));
    }
    for (const row of rows.values()) if (row.detail) look(row);
  }

  function lifetime(config) {
    if (!config) return "–";
    if (!config.caches) return "not cached";
    const { override, default: fallback, max } = config.lifetime;
    const begin = override ? `${override} (override)` : fallback ? `origin's, else ${fallback}` : "origin's";
    return max ? `${begin}, ≤ ${max}` : begin;
  }

  function addRow(body, name) {
    const id = `route-${rows.size}-${Math.random().toString(36).slice(2)}`;
    const button = make("button", { type: "button", className: "open", "aria-expanded": "false", "aria-controls": id, title: name }, name === "-" ? "(no route)" : name);
    const cells = new Map(CELLS.map(([cell, kind]) => [cell, make("td", { className: kind, role: "cell", "data-name": cell })]));
    const element = make("tr", { role: "row", "data-route": name }, make("td", { role: "rowheader" }, button), ...cells.values());
    const row = { name, id, button, cells, element, detail: null };
    button.addEventListener("click", () => (row.detail ? shut(row) : open(row)));
    rows.set(name, row);
    body.append(element);
  }

  function openRoute(name) {
    const row = rows.get(name);
    if (!row) return;
    if (!row.detail) open(row);
    row.button.focus();
  }

  function open(row) {
    const part = (title, className) => {
      const place = make("div");
      return [place, make("section", { className }, make("h3", {}, title), place)];
    };
    const [causes, causesBox] = part("Misses, by what they are due to", "");
    const [notStored, notStoredBox] = part("Not stored, because", "");
    const [bypasses, bypassesBox] = part("Past the cache, because", "");
    const [hot, hotBox] = part("Asked for most, of what the cache answered (sampled)", "half");
    const [missed, missedBox] = part("Missed most (sampled)", "half");
    const [graph, graphBox] = part("Requests per second", "whole");
    const minute = make("button", { type: "button", "aria-pressed": "true" }, "Minute");
    const hours = make("button", { type: "button", "aria-pressed": "false" }, "Hour");
    const facts = make("p", { className: "dim" });
    const purge = make("button", { type: "button", className: "danger small" }, "Purge this route");
    const said = make("span", { className: "said", role: "status" });
    purge.addEventListener("click", () => { fill("route", row.name); });
    graphBox.querySelector("h3").replaceWith(make("div", { className: "head" }, make("h3", {}, "Requests per second"), make("div", { className: "choice", role: "group", "aria-label": "Time shown" }, minute, hours)));
    const detail = {
      element: make("tr", { className: "detail", id: row.id, role: "row" }, make("td", { colSpan: 13, role: "cell" },
        make("div", { className: "detail-grid" }, graphBox, causesBox, notStoredBox, bypassesBox, hotBox, missedBox,
          make("div", { className: "whole" }, facts, purge, said)))),
      causes, notStored, bypasses, hot, missed, facts, chart: null, hour: false, asking: false,
    };
    row.detail = detail;
    row.button.setAttribute("aria-expanded", "true");
    row.element.after(detail.element);
    detail.chart = chart(graph, 150, `Requests per second on ${row.name}`);
    for (const [button, wide] of [[minute, false], [hours, true]]) {
      button.addEventListener("click", () => {
        detail.hour = wide;
        minute.setAttribute("aria-pressed", String(!wide));
        hours.setAttribute("aria-pressed", String(wide));
        if (detail.last) detail.chart.show(points(detail.last.history[wide ? "minutes" : "seconds"], latest.stats.uptime_s));
      });
    }
    look(row);
  }

  function shut(row) {
    if (!row.detail) return;
    row.detail.chart.end();
    row.detail.element.remove();
    row.detail = null;
    row.button.setAttribute("aria-expanded", "false");
  }

  // Asks for all of a route that is open.
  async function look(row) {
    const { detail } = row;
    if (detail.asking) return;
    detail.asking = true;
    try {
      const answer = await ask(`/dashboard/route?name=${encodeURIComponent(row.name)}`);
      if (answer.ok && row.detail === detail) inside(row, await answer.json());
    } catch (_) {
      // The next event says whether Larder is there.
    } finally {
      detail.asking = false;
    }
  }

  function inside(row, about) {
    const { detail } = row;
    const { stats, config } = about;
    detail.last = about;
    detail.chart.show(points(about.history[detail.hour ? "minutes" : "seconds"], latest.stats.uptime_s));
    const some = (words) => Object.fromEntries(Object.entries(words).filter(([, n]) => n > 0));
    for (const [place, words, kind] of [[detail.causes, stats.miss_causes, "c-miss"], [detail.notStored, stats.not_stored, "c-bad"], [detail.bypasses, stats.bypass_reasons, "c-other"]]) {
      renew(place, some(words), () => [counts(words, kind)]);
    }
    for (const [place, list] of [[detail.hot, about.hot], [detail.missed, about.missed]]) {
      renew(place, list, () => [keys(list)]);
    }
    const facts = [
      `${number(stats.requests)} requests`, `${number(stats.revalidated)} confirmed by a 304`, `${number(stats.collapsed)} shared another's fetch`,
      `${number(stats.failed)} failed`, `${number(stats.rate_limited)} over the rate limit`, `${number(stats.origin_fetches)} to the origin, ${took(about.recent.fetch_s)} each`,
      `${bytes(stats.bytes_out)} sent`,
      ...(config ? [`upstream ${config.upstream}`, `line ${config.line} of the configuration`, `lifetime: ${lifetime(config)}`] : ["not in the configuration any more"]),
      ...(config && config.lifetime && config.lifetime.stale_while_revalidate ? [`stale_while_revalidate ${config.lifetime.stale_while_revalidate}`] : []),
      ...(config && config.lifetime && config.lifetime.stale_if_error ? [`stale_if_error ${config.lifetime.stale_if_error}`] : []),
    ];
    say(detail.facts, facts.join(" · "));
  }

  function keys(list) {
    if (list.length === 0) return make("p", { className: "none" }, "none in the sample");
    return make("ul", { className: "keys" }, ...list.map(({ url, part }) => {
      // What is not shown whole cannot be asked for.
      const whole = !url.endsWith("…") && !url.includes("redacted");
      const button = (text, act) => (whole ? make("button", { type: "button", className: "small", "aria-label": `${text} ${url}`, onclick: act }, text) : null);
      return make("li", {}, make("span", { className: "url code", title: url }, url), make("span", { className: "dim n" }, percent(part)),
        button("Explain", () => { byId("explain-url").value = url; byId("explain").requestSubmit(); byId("explain").scrollIntoView({ block: "center" }); }),
        button("Purge", () => fill("url", url)));
    }));
  }

  // Fills the form, for its button to be pressed.
  function fill(kind, name) {
    byId("purge-kind").value = kind;
    byId("purge-name").value = name;
    byId("purge").scrollIntoView({ block: "center" });
    byId("purge").querySelector("button").focus();
  }

  // --- tiers, upstreams, purges, slow requests ---------------------------------------------------------------------

  function facts(list, pairs) {
    renew(list, pairs, () => pairs.flatMap(([name, text, kind]) => [make("dt", {}, name), make("dd", { className: kind || "" }, text)]));
  }

  function memory(stats) {
    const { memory } = stats.tiers;
    const most = Math.max(memory.budget + memory.in_flight + memory.lingering, 1);
    const place = byId("memory-bar");
    place.title = `${bytes(memory.bytes)} of ${bytes(memory.budget)}`;
    const shares = [[memory.bytes / most, "c-hit"], [memory.in_flight / most, "c-origin"], [memory.lingering / most, "c-miss"]];
    renew(place, shares, () => [...bar(shares).children]);
    facts(byId("memory"), [
      ["budget", bytes(memory.budget)], ["weighed", `${bytes(memory.bytes)} in ${number(memory.entries)} keys`], ["in flight", bytes(memory.in_flight)],
      ["given up, still read", bytes(memory.lingering)], ["the process has", bytes(stats.resident_bytes)],
      ["answers", `${number(memory.hits)} of ${number(memory.lookups)} lookups`],
    ]);
  }

  function redis(stats) {
    const { redis } = stats.tiers;
    if (!redis) {
      facts(byId("redis"), [["redis", "not configured: memory only", "dim"]]);
      return;
    }
    const { fleet } = stats;
    facts(byId("redis"), [
      ["redis", redis.up ? "up" : "down", redis.up ? "good" : "bad"], ["breaker", redis.breaker, redis.breaker === "closed" ? "" : "bad"],
      ["answers", `${number(redis.hits)} of ${number(redis.lookups)} lookups`], ["read", bytes(redis.read_bytes)],
      ["written", `${bytes(redis.written_bytes)} in ${number(redis.writes)} writes`], ["waiting to be written", bytes(redis.queue_bytes)],
      ["errors", `${number(redis.errors)}, too slow ${number(redis.deadline_exceeded)}, damaged ${number(redis.damaged)}, dropped writes ${number(redis.dropped_writes)}`],
      ...(fleet ? [["this node", fleet.node], ["purges heard", `${fleet.coherence}, ${fleet.lag_s.toFixed(1)} s ago (bound ${fleet.bound_s} s)`, fleet.coherence === "ok" ? "good" : "bad"],
        ["purges", `${number(fleet.purges_applied)} applied, ${number(fleet.purges_told)} told, ${number(fleet.purges_waiting)} waiting`]] : []),
    ]);
  }

  // A cell that a narrow screen names.
  const cell = (name, className, ...content) => make("td", { className, role: "cell", "data-name": name }, ...content);

  function upstreams(all) {
    const servers = Object.entries(all).flatMap(([name, servers]) => Object.entries(servers).map(([server, of]) => [name, server, of]));
    renew(byId("upstreams"), servers, () => servers.map(([name, server, of]) => {
      const flaws = Object.values(of.flaws).reduce((sum, n) => sum + n, 0);
      const wrong = (n) => `n ${n > 0 ? "bad" : ""}`;
      return make("tr", { role: "row" }, make("td", { role: "rowheader" }, name), cell("server", "broad code", server), cell("open", "n", number(of.open)), cell("idle", "n", number(of.idle)),
        cell("waiting", wrong(of.waiting), number(of.waiting)), cell("connects", "n", number(of.connects)), cell("errors", wrong(of.connect_errors), number(of.connect_errors)),
        cell("reused", "n", number(of.reused)), cell("retries", "n", number(of.retries)), cell("hedges", "n", `${number(of.hedges)} (${number(of.hedges_won)} won)`),
        cell("flaws", wrong(flaws), number(flaws)));
    }));
  }

  function heardBy(fleet) {
    if (!fleet) return ["–", "dim"];
    if (fleet.error) return [fleet.error, "bad"];
    const [heard, missing] = [fleet.acknowledged.length, fleet.missing.length];
    const have = `${heard} ${heard === 1 ? "node has" : "nodes have"} it`;
    const slowest = fleet.slowest ? `, the slowest after ${took(fleet.slowest.after_s)}` : "";
    return missing > 0 ? [`${have}, ${missing} not: ${fleet.missing.map((node) => node.node).join(", ")}`, "bad"] : [have + slowest, "good"];
  }

  function purges(list) {
    byId("purges-none").hidden = list.length > 0;
    renew(byId("purges"), list, () => list.map((purge) => {
      const [text, kind] = heardBy(purge.fleet);
      return make("tr", { role: "row" }, make("td", { role: "cell" }, clock(purge.at_ms)),
        cell("what", "long", `${purge.soft ? "softly, " : ""}${purge.of}${purge.first ? ": " : ""}`, make("span", { className: "code" }, purge.first)),
        cell("by", "half", purge.by), cell("memory", "half", purge.memory), cell("redis", `half ${purge.status === 200 ? "" : "bad"}`, purge.redis || "–"), cell("nodes", `broad ${kind}`, text));
    }));
  }

  function slow(event) {
    const list = event.slow;
    byId("slow-none").hidden = list.length > 0;
    say(byId("slow-none"), event.slow_after_s === null ? "They are not looked for: timing.slow_request is off." : `None that took longer than ${took(event.slow_after_s)} since the start.`);
    renew(byId("slow-rows"), list, () => list.map((one) => {
      // What is no hundredth of it explains nothing.
      const phases = Object.entries(one.phases_ms).filter(([, ms]) => ms * 100 >= one.total_ms).sort((a, b) => b[1] - a[1]);
      const told = phases.map(([phase, ms]) => `${phase.replace("_", " ")} ${took(ms / 1000)}`).join(", ");
      const kinds = { first_byte: "c-origin", connect: "c-origin", body: "c-hit", redis: "c-bad", queue: "c-bad", wait: "c-miss", lease: "c-miss" };
      return make("tr", { role: "row" }, make("td", { role: "cell" }, clock(Date.parse(one.ts))), cell("took", "n", took(one.total_ms / 1000)),
        cell("where the time went", "broad", make("div", { className: "phases", title: told }, bar(phases.map(([phase, ms]) => [ms / one.total_ms, kinds[phase] || "c-other"]), { "aria-hidden": "true" }), make("span", { className: "dim" }, told || "–"))),
        cell("status", `n ${one.status >= 500 ? "bad" : ""}`, String(one.status)), cell("request", "long code", `${one.method} ${one.host}${one.path}`), cell("route", "", one.route),
        cell("outcome", "", [one.outcome, one.reason, one.detail].filter(Boolean).join(", ")));
    }));
  }

  // --- purge and explain -------------------------------------------------------------------------------------------

  // While it is asked, the button rests; whatever goes wrong is said.
  function asks(id, work) {
    const form = byId(id);
    const said = byId(`${id}-said`);
    form.addEventListener("submit", async (event) => {
      event.preventDefault();
      const button = form.querySelector("button");
      button.disabled = true;
      try {
        await work(said);
      } catch (_) {
        said.replaceChildren(make("p", { className: "bad" }, "Larder does not answer."));
      } finally {
        button.disabled = false;
      }
    });
  }

  asks("purge", async (said) => {
    const kind = byId("purge-kind").value;
    const name = byId("purge-name").value.trim();
    const answer = await send("/purge", { [kind]: name, soft: byId("purge-soft").checked });
    const receipt = await answer.json();
    const [text, colour] = heardBy(receipt.fleet);
    said.replaceChildren(...(receipt.error ? [make("p", { className: "bad" }, receipt.error)] : [
      make("p", { className: receipt.purged ? "good" : "bad" }, `${receipt.purged ? "Purged" : "Not purged everywhere"}: ${name}`),
      make("p", {}, `memory: ${receipt.memory}; redis: ${receipt.redis}; the fleet: `, make("span", { className: colour }, text)),
    ]));
  });

  asks("explain", async (said) => {
    const url = byId("explain-url").value.trim();
    const parts = /^https?:\/\/([^/?#]+)([^#]*)/i.exec(url);
    const fields = byId("explain-fields").value.split("|").map((field) => field.trim()).filter(Boolean).map((field) => {
      const colon = field.indexOf(":");
      return [field.slice(0, colon).trim(), field.slice(colon + 1).trim()];
    });
    const target = parts ? (parts[2].startsWith("/") ? parts[2] : `/${parts[2]}`) : url;
    const answer = await send("/explain", { method: byId("explain-method").value, target, fields: [...(parts ? [["host", parts[1]]] : []), ...fields] });
    const told = await answer.json();
    said.replaceChildren(...(told.error ? [make("p", { className: "bad" }, told.error)] : explained(told)));
  });

  function explained({ route, key, memory, verdict, would_be_a_hit_if: advice }) {
    const good = verdict.x_cache === "HIT" || verdict.x_cache === "STALE";
    const held = (memory && memory.variants) || [];
    const chosen = held.find((variant) => variant.selected) || held[0];
    const pairs = [
      ["route", route ? `${route.name} (line ${route.line}${route.file ? "" : " of what --print-config prints"})` : "none takes it"],
      ["key", key && key.key ? key.key : "–"],
      ["memory", chosen ? `${chosen.status}, age ${Math.round(chosen.age)} s of ${Math.round(chosen.lifetime)} s${chosen.lifetime_from ? ` by ${chosen.lifetime_from}` : ""}` : "nothing"],
      ["why", `${verdict.why || "–"}${verdict.rfc ? ` [${verdict.rfc}]` : ""}`],
    ];
    const tips = advice ? [...advice.settings.map((setting) => [setting.line, `${setting.table} of line ${advice.route_line}; ${setting.caution}`]), ...advice.request.map((text) => [text, "asked so"]), ...(advice.once_stored ? [["once stored", "such a request has to bring it first: nothing is stored yet"]] : [])] : [];
    return [
      make("p", {}, make("b", { className: good ? "good" : "warn" }, verdict.x_cache || verdict.outcome), verdict.reason ? ` (${verdict.reason})` : ""),
      make("dl", { className: "facts-list" }, ...pairs.flatMap(([name, text]) => [make("dt", {}, name), make("dd", {}, text)]),
        ...tips.flatMap(([line, text]) => [make("dt", {}, "a hit if"), make("dd", {}, make("code", {}, line), make("span", { className: "dim" }, ` ${text}`))])),
    ];
  }

  // --- how it looks ------------------------------------------------------------------------------------------------

  const THEMES = ["system", "light", "dark"];

  function theme(name) {
    if (name === "system") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = name;
    say(byId("theme"), `Theme: ${name}`);
    repaint();
  }

  function repaint() {
    if (traffic) traffic.repaint();
    for (const row of rows.values()) if (row.detail) row.detail.chart.repaint();
  }

  byId("theme").addEventListener("click", () => {
    const now = THEMES.indexOf(localStorage.getItem("larder-theme") || "system");
    const next = THEMES[(now + 1) % THEMES.length];
    localStorage.setItem("larder-theme", next);
    theme(next);
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", repaint);

  for (const [id, wide] of [["last-minute", false], ["last-hour", true]]) {
    byId(id).addEventListener("click", () => {
      hour = wide;
      byId("last-minute").setAttribute("aria-pressed", String(!wide));
      byId("last-hour").setAttribute("aria-pressed", String(wide));
      if (traffic) traffic.show(hour ? history.minutes : history.seconds);
    });
  }

  // Whoever looks must not take old figures for new.
  setInterval(() => {
    if (heard > 0 && Date.now() - heard > 5000) state("lost", `nothing heard for ${Math.round((Date.now() - heard) / 1000)} s`);
  }, 1000);

  theme(localStorage.getItem("larder-theme") || "system");
  for (const table of document.querySelectorAll("table")) table.setAttribute("role", "table");
  listen();
})();
