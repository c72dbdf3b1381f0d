"""How the page looks, and the few lines of script that show a mark's words beside the pointer."""

CSS = """
:root {
  color-scheme: light dark;
  --paper: #f5f6f8; --card: #fff; --ink: #16202c; --soft: #5b6876; --line: #e2e6eb; --lane: #d5dbe2;
  --blue: #1f6feb; --blue-wash: #1f6feb26; --teal: #0a8f7a; --red: #d1343f; --grey: #9aa6b3;
  --s0: #2469d6; --s1: #7d4fd3; --s2: #c13d95; --s3: #e8663c; --s4: #eda81c;
}
@media (prefers-color-scheme: dark) {
  :root {
    --paper: #0e1319; --card: #171e27; --ink: #e6ebf1; --soft: #96a3b2; --line: #28323e;
    --lane: #303b48; --blue: #58a0ff; --blue-wash: #58a0ff2e; --teal: #35c4a8; --red: #ff6b70;
    --grey: #6b7888;
    --s0: #4f94ff; --s1: #a17bf2; --s2: #e062b4; --s3: #ff8659; --s4: #ffc94d;
  }
}
* { box-sizing: border-box; }
body {
  margin: 0; background: var(--paper); color: var(--ink);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Liberation Sans", sans-serif;
}
main { max-width: 1080px; margin: 0 auto; padding: 36px 20px 48px; }
header .over { color: var(--soft); margin: 0; letter-spacing: .02em; overflow-wrap: anywhere; }
h1 { font-size: clamp(24px, 4.2vw, 38px); line-height: 1.18; letter-spacing: -.02em;
  margin: 6px 0 28px; text-wrap: balance; }
h2 { font-size: 17px; margin: 0 0 2px; letter-spacing: -.01em; }
section > p { margin: 0 0 14px; color: var(--soft); max-width: 46em; }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(150px, 1fr)); gap: 12px; }
.card, section { background: var(--card); border: 1px solid var(--line); border-radius: 12px; }
.card { padding: 14px 16px; }
.card .what { color: var(--soft); font-size: 13px; }
.card .value { font-size: 26px; font-weight: 650; letter-spacing: -.02em; line-height: 1.25; }
.card .more { color: var(--soft); font-size: 13px; line-height: 1.35; }
.columns { display: grid; grid-template-columns: 1fr 1fr; gap: 16px; }
section { padding: 20px 22px; margin-top: 16px; min-width: 0; }
.plot { display: flex; margin-top: 10px; }
.plot > svg { display: block; overflow: visible; min-width: 0; flex: 1 1 0; }
.plot > svg.gutter { flex: none; }
svg text { font-size: 12px; fill: var(--soft); font-variant-numeric: tabular-nums; }
text.small { font-size: 11px; } text.strong { font-weight: 650; fill: var(--ink); }
text.end { text-anchor: end; } text.middle { text-anchor: middle; }
text.halo { paint-order: stroke; stroke: var(--card); stroke-width: 4px; stroke-linejoin: round; }
text.gain { fill: var(--teal); } text.gain.loss { fill: var(--red); }
text.on-ours { fill: #fff; } text.on-theirs { fill: var(--ink); }
.grid { stroke: var(--line); } .axis { stroke: var(--grey); } .lane { stroke: var(--lane); }
.known { stroke: var(--grey); stroke-dasharray: 5 4; }
polyline { fill: none; stroke-width: 2.25; stroke-linejoin: round; }
polyline.served { stroke: var(--blue); } polygon.error { fill: var(--blue-wash); }
circle.served { fill: var(--blue); }
circle.evaluated { fill: var(--card); stroke: var(--teal); stroke-width: 1.75; }
path.disturbance { fill: var(--red); stroke: var(--card); }
line.gain { stroke: var(--teal); stroke-width: 4; } line.loss { stroke: var(--red); }
circle.before { fill: var(--card); stroke: var(--grey); stroke-width: 2; }
circle.after { fill: var(--teal); } circle.after.loss { fill: var(--red); }
rect.ours { fill: var(--blue); } rect.theirs { fill: var(--lane); }
.s0 { fill: var(--s0); } .s1 { fill: var(--s1); } .s2 { fill: var(--s2); }
.s3 { fill: var(--s3); } .s4 { fill: var(--s4); }
line.release { stroke: var(--teal); stroke-opacity: .28; }
rect.absent { fill: var(--card); stroke: var(--grey); stroke-dasharray: 3 2; }
path.refused { fill: var(--card); stroke: var(--red); stroke-width: 1.75; }
path.death { stroke: var(--ink); stroke-width: 2.5; fill: none; }
svg circle[data-tip], svg path[data-tip] { cursor: default; }
svg [data-tip]:hover { filter: brightness(1.25); }
.legend { list-style: none; display: flex; flex-wrap: wrap; gap: 2px 16px; margin: 8px 0 0;
  padding: 0; font-size: 13px; color: var(--soft); }
.key { display: inline-block; width: 10px; height: 10px; border-radius: 50%; margin-right: 6px; }
.key.served { width: 16px; height: 3px; border-radius: 2px; background: var(--blue);
  vertical-align: middle; }
.key.evaluated { border: 2px solid var(--teal); }
.key.before { border: 2px solid var(--grey); } .key.after { background: var(--teal); }
.key.disturbance { background: var(--red); border-radius: 0; transform: rotate(45deg) scale(.75); }
.key.s0 { background: var(--s0); } .key.s1 { background: var(--s1); }
.key.s2 { background: var(--s2); } .key.s3 { background: var(--s3); }
.key.s4 { background: var(--s4); }
.key.release { width: 2px; height: 13px; border-radius: 0; background: var(--teal); opacity: .5;
  vertical-align: -2px; }
.key.absent { width: 16px; border: 1px dashed var(--grey); border-radius: 2px; }
.key.refused { border: 5px solid transparent; border-top: 9px solid var(--red); width: 0; height: 0;
  border-radius: 0; border-bottom: 0; }
.key.death::before { content: "\\2715"; font-style: normal; font-weight: 700; color: var(--ink);
  line-height: 10px; }
.wide { overflow-x: auto; margin: 8px -22px 0; padding: 0 22px; }
table { border-collapse: collapse; width: 100%; min-width: 720px; font-size: 14px;
  font-variant-numeric: tabular-nums; }
th { text-align: left; color: var(--soft); font-weight: 500; font-size: 13px; white-space: nowrap; }
th, td { padding: 7px 14px 7px 0; border-bottom: 1px solid var(--line); }
tr:last-child td { border-bottom: 0; }
td.number, th.number { text-align: right; white-space: nowrap; }
td:first-child { font-weight: 600; }
td:nth-child(-n + 2) { white-space: nowrap; }
td.state, th.state { padding-left: 14px; }
.state { color: var(--soft); } .state.online { color: var(--teal); }
.state.died { color: var(--red); }
td .key { margin-right: 8px; }
.incidents { margin: 8px 0 0; padding-left: 20px; } .incidents li { margin: 3px 0; }
.incidents, .settings dd, .over { overflow-wrap: anywhere; }
summary { cursor: pointer; color: var(--soft); margin-top: 6px; }
.cameras { display: grid; grid-template-columns: repeat(auto-fill, minmax(232px, 1fr));
  gap: 18px 24px; margin-top: 10px; }
figure { margin: 0; } figcaption { color: var(--soft); font-size: 13px; margin-top: 4px; }
figure div { display: grid; grid-template-columns: repeat(4, 1fr); gap: 3px; }
figure img { width: 100%; aspect-ratio: 1; object-fit: cover; border-radius: 4px; display: block;
  image-rendering: pixelated; }
.settings { display: grid; grid-template-columns: max-content 1fr; gap: 3px 20px; margin: 8px 0 0; }
.settings dt { color: var(--soft); } .settings dd { margin: 0; }
#tip { position: fixed; z-index: 1; max-width: 280px; padding: 6px 10px; border-radius: 7px;
  background: var(--ink); color: var(--card); font-size: 13px; line-height: 1.35;
  pointer-events: none; overflow-wrap: anywhere; }
@media (max-width: 760px) {
  main { padding: 22px 12px 32px; }
  .columns { grid-template-columns: 1fr; gap: 0; }
  .cards { grid-template-columns: 1fr 1fr; gap: 8px; }
  .card { padding: 12px; } .card .value { font-size: 22px; }
  section { padding: 16px 14px; margin-top: 10px; }
  .wide { margin: 8px -14px 0; padding: 0 14px; }
}
@media print {
  :root {
    color-scheme: light;
    --paper: #fff; --card: #fff; --ink: #000; --soft: #444; --line: #ddd; --lane: #ccc;
  }
  * { print-color-adjust: exact; -webkit-print-color-adjust: exact; }
  main { max-width: none; padding: 0; }
  section, .card { break-inside: avoid; }
  section.long { break-inside: auto; }
}
"""

SCRIPT = """
const tip = document.getElementById("tip");
function show(event) {
  const mark = event.target.closest ? event.target.closest("[data-tip]") : null;
  tip.hidden = mark === null;
  if (mark === null) return;
  tip.textContent = mark.dataset.tip;
  const left = Math.min(event.clientX + 14, innerWidth - tip.offsetWidth - 8);
  const above = event.clientY - tip.offsetHeight - 12;
  tip.style.left = Math.max(8, left) + "px";
  tip.style.top = (above > 8 ? above : event.clientY + 18) + "px";
}
document.addEventListener("pointermove", show);
document.addEventListener("pointerdown", show);
document.addEventListener("scroll", () => { tip.hidden = true; }, { passive: true });
"""
