"use strict";
// The page's own behaviour: light and dark, charts, choosers, tables that sort and filter.
(() => {
  const root = document.documentElement;

  // Light and dark: what the system says, until somebody chooses. Charts draw in `currentColor`.
  const toggle = document.getElementById("theme");
  const system = matchMedia("(prefers-color-scheme: dark)");
  const stored = (value) => {
    try {
      if (value !== undefined) localStorage.setItem("ftbench-theme", value);
      return localStorage.getItem("ftbench-theme");
    } catch {
      return null; // a page opened from a file may have no storage
    }
  };
  const dark = () => (root.dataset.theme ? root.dataset.theme === "dark" : system.matches);
  const label = () => {
    toggle.textContent = dark() ? "Light" : "Dark";
    toggle.setAttribute("aria-label", `Use ${dark() ? "light" : "dark"} colours`);
  };
  if (["light", "dark"].includes(stored())) root.dataset.theme = stored();
  toggle.hidden = false;
  toggle.addEventListener("click", () => {
    root.dataset.theme = dark() ? "light" : "dark";
    stored(root.dataset.theme);
    label();
  });
  system.addEventListener("change", label);
  label();

  // Charts. A choice is rows without their names: [columns, [row, ...]].
  const figures = JSON.parse(document.getElementById("figures").textContent);
  const named = ([columns, rows]) =>
    rows.map((row) => {
      const one = {};
      columns.forEach((name, i) => {
        if (row[i] !== null) one[name] = row[i];
      });
      return one;
    });
  const views = new Map();
  const options = {
    mode: "vega-lite",
    renderer: "svg",
    actions: false,
    defaultStyle: false,
    ast: true, // no code is made from text: the page's policy forbids it
    tooltip: { disableDefaultStyle: true },
  };
  const draw = async (place) => {
    const figure = figures[place.dataset.figure];
    figure.spec.datasets = { chosen: named(Object.values(figure.choices)[0]) };
    const { view } = await window.vegaEmbed(place, figure.spec, options);
    views.set(place.dataset.figure, view);
  };
  const pause = () => new Promise((resume) => setTimeout(resume, 0));
  const drawAll = async () => {
    const places = [...document.querySelectorAll(".chart")];
    const below = (place) => Math.max(0, place.getBoundingClientRect().top - innerHeight);
    places.sort((a, b) => below(a) - below(b)); // what is in sight comes first
    for (const place of places) {
      await draw(place);
      await pause();
    }
    performance.mark("ftbench-ready");
    root.dataset.ready = "true";
  };

  for (const select of document.querySelectorAll("select[data-chooser]")) {
    select.addEventListener("change", () => {
      for (const place of select.closest(".group").querySelectorAll(".chart")) {
        const rows = figures[place.dataset.figure].choices[select.value];
        const view = views.get(place.dataset.figure);
        const there = Boolean(rows) && rows[1].length > 0;
        place.closest("figure").hidden = !there; // a cell without samples has no timeline
        if (view && there) view.data("chosen", named(rows)).runAsync();
      }
    });
  }

  // Tables. A cell's `data-k` is what it sorts by: bytes, seconds, a count; else its text is.
  const units = {
    ms: 1e-3, s: 1, min: 60, h: 3600, "%": 0.01,
    kib: 1024, mib: 1024 ** 2, gib: 1024 ** 3, tib: 1024 ** 4,
  };
  const number = (text) => {
    const found = /^\s*([-+]?[\d,]*\.?\d+(?:e[-+]?\d+)?)\s*([a-z%]*)\s*$/i.exec(text);
    if (!found || (found[2] && !(found[2].toLowerCase() in units))) return NaN;
    return Number(found[1].replaceAll(",", "")) * (found[2] ? units[found[2].toLowerCase()] : 1);
  };
  const key = (cell) => {
    if (cell.dataset.k === "") return null; // absent
    const text = cell.dataset.k ?? cell.textContent;
    const value = Number(text.replaceAll(",", ""));
    return text.trim() !== "" && !Number.isNaN(value) ? value : text;
  };
  const compare = (a, b) => {
    if (a === null || b === null) return (a === null) - (b === null);
    if (typeof a === "number" && typeof b === "number") return a - b;
    return String(a).localeCompare(String(b), "en", { numeric: true });
  };
  const tests = {
    "=": (a, b, text) => a === b || String(a) === text || (typeof a === "string" && a.includes(text)),
    "<": (a, b) => a !== null && a < b,
    ">": (a, b) => a !== null && a > b,
    "<=": (a, b) => a !== null && a <= b,
    ">=": (a, b) => a !== null && a >= b,
  };
  // `length=128 accuracy>0.8 ok`: every word must hold; a word without a column is looked for anywhere.
  // Columns have spaces in their names, some underscores (`learning_rate`); a word has underscores only.
  const spaced = (name) => name.trim().toLowerCase().replaceAll("_", " ");
  const rule = (word, heads) => {
    const found = /^(.+?)(<=|>=|=|<|>)(.+)$/.exec(word);
    const column = found ? heads.indexOf(spaced(found[1])) : -1;
    if (column < 0) return (row) => row.textContent.toLowerCase().includes(word);
    return (row) => tests[found[2]](key(row.cells[column]), number(found[3]), found[3]);
  };

  // A table that has more to see than there is room for says so, and has a shadow on that side.
  const hint = (box) => {
    const scroll = box.querySelector(".scroll");
    const note = box.querySelector(".more");
    const look = () => {
      const wide = scroll.scrollWidth - scroll.clientWidth;
      const tall = scroll.scrollHeight - scroll.clientHeight;
      const ways = [wide > 1 && "sideways", tall > 1 && "down"].filter(Boolean);
      note.hidden = ways.length === 0;
      note.textContent = `This table scrolls ${ways.join(" and ")}.`;
      const sides = scroll.parentElement.classList;
      sides.toggle("left", scroll.scrollLeft > 1);
      sides.toggle("right", wide - scroll.scrollLeft > 1);
      sides.toggle("above", scroll.scrollTop > 1);
      sides.toggle("below", tall - scroll.scrollTop > 1);
    };
    scroll.addEventListener("scroll", look, { passive: true });
    const sizes = new ResizeObserver(look);
    sizes.observe(scroll);
    sizes.observe(scroll.firstElementChild);
  };

  // On a phone the columns that a run is judged by come first.
  const narrow = matchMedia("(max-width: 480px)");
  const order = (heads, rows) => {
    const place = (head) => Number(head.dataset.leading ?? heads.length);
    const leading = heads.map((_, i) => i).sort((a, b) => place(heads[a]) - place(heads[b]));
    let now = heads.map((_, i) => i);
    const arrange = () => {
      const next = narrow.matches ? leading : heads.map((_, i) => i);
      if (next.join() === now.join()) return;
      for (const row of rows) {
        const cells = [...row.cells];
        row.append(...next.map((column) => cells[now.indexOf(column)]));
      }
      now = next;
    };
    narrow.addEventListener("change", arrange);
    arrange();
  };

  for (const box of document.querySelectorAll("[data-table]")) {
    const body = box.querySelector("tbody");
    const rows = [...body.rows];
    const heads = [...box.querySelectorAll("th")];
    const names = () => [...heads[0].parentElement.cells].map((head) => spaced(head.textContent));
    order(heads, [heads[0].parentElement, ...rows]);
    hint(box);
    heads.forEach((head) => {
      head.querySelector("button").addEventListener("click", () => {
        const column = head.cellIndex;
        const down = head.getAttribute("aria-sort") === "ascending";
        heads.forEach((other) => other.setAttribute("aria-sort", "none"));
        head.setAttribute("aria-sort", down ? "descending" : "ascending");
        const keyed = rows.map((row) => [key(row.cells[column]), row]);
        const absent = (one) => one[0] === null;
        keyed.sort((a, b) =>
          absent(a) || absent(b) || !down ? compare(a[0], b[0]) : compare(b[0], a[0]));
        body.append(...keyed.map((one) => one[1]));
      });
    });
    const input = box.querySelector("input");
    const count = box.querySelector("output");
    if (!input) continue;
    const filter = () => {
      const rules = input.value.toLowerCase().split(/\s+/).filter(Boolean).map((w) => rule(w, names()));
      let shown = 0;
      for (const row of rows) {
        row.hidden = !rules.every((holds) => holds(row));
        shown += row.hidden ? 0 : 1;
      }
      count.textContent = `${shown.toLocaleString("en")} of ${rows.length.toLocaleString("en")} rows`;
    };
    input.addEventListener("input", filter);
    filter();
  }

  drawAll();
})();
