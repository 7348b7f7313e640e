"""The page's style sheet: light and dark after the reader's system, nothing fetched."""

CSS = """
:root { color-scheme: light dark; --bg:#fbfbfa; --card:#fff; --ink:#1f2328; --soft:#656d76; --rule:#e3e5e8;
  --c1:#2563c9; --c2:#c4661f; --c3:#2b8a57; --c4:#8a4fb5; --c5:#5f6b7a; --good:#237248; --bad:#b3373a; }
@media (prefers-color-scheme: dark) { :root { --bg:#15181c; --card:#1d2126; --ink:#e4e6e9; --soft:#98a1ab;
  --rule:#31373e; --c1:#78a9ff; --c2:#f0a05f; --c3:#66c794; --c4:#c495ea; --c5:#9aa7b5;
  --good:#66c794; --bad:#ef8482; } }
* { box-sizing:border-box }
body { margin:0 auto; max-width:1180px; padding:28px 20px 60px; background:var(--bg); color:var(--ink);
  font:15px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,sans-serif; overflow-wrap:anywhere }
h1 { font-size:26px; margin:0 } h2 { font-size:19px; margin:40px 0 10px } h3 { font-size:14px; margin:0 0 6px }
p { margin:6px 0 } .soft, figcaption { color:var(--soft); font-size:13px }
.cards { display:grid; grid-template-columns:repeat(auto-fit,minmax(165px,1fr)); gap:12px; margin:20px 0 }
.card { background:var(--card); border:1px solid var(--rule); border-radius:10px; padding:12px 14px }
.card b { display:block; font-size:20px; line-height:1.4; white-space:nowrap; font-weight:650;
  font-variant-numeric:tabular-nums }
.card b.none { color:var(--soft); font-weight:400 }
.plots { display:grid; grid-template-columns:repeat(auto-fill,minmax(min(330px,100%),1fr)); gap:14px }
figure { margin:0; background:var(--card); border:1px solid var(--rule); border-radius:10px; padding:12px 14px }
figcaption { margin-top:4px } svg { width:100%; height:auto; display:block }
svg text { font:11px system-ui,sans-serif; fill:var(--ink) } svg .tick, svg .note { fill:var(--soft); font-size:10px }
svg .value { font-size:10px; font-variant-numeric:tabular-nums }
svg .grid { stroke:var(--rule); stroke-width:1 } svg .track { fill:var(--rule) }
svg .line { fill:none; stroke-width:1.8; stroke-linejoin:round } svg .interval { stroke-width:2; stroke-linecap:round }
.line.c1,.interval.c1 { stroke:var(--c1) } .line.c2,.interval.c2 { stroke:var(--c2) } .line.c3 { stroke:var(--c3) }
.line.c4 { stroke:var(--c4) } .line.c5 { stroke:var(--c5) }
.dot.c1,.bar.c1 { fill:var(--c1) } .dot.c2 { fill:var(--c2) } .dot.c3 { fill:var(--c3) } .dot.c4 { fill:var(--c4) }
.dot.c5 { fill:var(--c5) }
.legend { display:flex; flex-wrap:wrap; gap:2px 14px; font-size:12px; color:var(--soft) }
.legend i { display:inline-block; width:10px; height:10px; border-radius:5px; margin-right:5px }
.legend .c1 { background:var(--c1) } .legend .c2 { background:var(--c2) } .legend .c3 { background:var(--c3) }
.legend .c4 { background:var(--c4) } .legend .c5 { background:var(--c5) }
table { border-collapse:collapse; width:100%; background:var(--card); border:1px solid var(--rule); font-size:14px }
th,td { text-align:left; padding:6px 12px; border-bottom:1px solid var(--rule); vertical-align:top }
th { color:var(--soft); font-weight:500; font-size:13px }
th { overflow-wrap:normal } th,td { min-width:3.2em } td:first-child { min-width:7.2em }
td.n,th.n { text-align:right; font-variant-numeric:tabular-nums }
.missing { color:var(--soft); border-left:3px solid var(--c2); padding:4px 12px; margin:10px 0 }
details { background:var(--card); border:1px solid var(--rule); border-radius:10px; margin:10px 0; padding:10px 14px }
summary { cursor:pointer } summary:focus-visible { outline:2px solid var(--c1) }
pre { white-space:pre-wrap; margin:4px 0; font:13px/1.45 ui-monospace,Menlo,Consolas,monospace;
  unicode-bidi:plaintext }
.problem { font-size:16px; margin:8px 0 } .problem,.said { white-space:pre-wrap; unicode-bidi:plaintext }
.said { margin:4px 0 } .code { background:var(--bg); border-radius:6px; padding:6px 10px }
.votes { margin:4px 0; padding-left:20px } .votes .soft { white-space:pre-wrap }
math { font-size:1.05em } .boxed { border:1px solid; padding:2px 4px }
.wide { display:inline-block; max-width:100%; overflow:auto hidden; vertical-align:middle }
.block { display:block; text-align:center; margin:6px 0 } a { color:var(--c1) }
.turn { border-left:3px solid var(--rule); padding:2px 0 6px 12px; margin:10px 0 }
.turn.check { border-color:var(--c3) } .turn.refine { border-color:var(--c2) } .turn.finalize { border-color:var(--c1) }
.turn.draft { border-color:var(--c5) }
.tool { background:var(--bg); border-radius:6px; padding:4px 10px; margin-top:4px }
.tag { display:inline-block; max-width:100%; font-size:12px; border:1px solid var(--rule); border-radius:9px;
  padding:0 8px; color:var(--soft) }
.opening { font-size:17px; max-width:70ch; margin:14px 0; border-left:4px solid var(--rule); padding:2px 0 2px 14px }
.opening.up { border-color:var(--good) } .opening.down { border-color:var(--bad) }
@media (min-width:641px) { td.n,th.n { white-space:nowrap } }
@media (max-width:640px) { body { padding:18px 12px 40px }
  table { font-size:12px } th { font-size:11px }
  th,td { padding:4px 3px; overflow-wrap:anywhere; min-width:2.9em } td:not(.n) { min-width:3.6em }
  td:first-child { min-width:6.2em } }
@media print { :root { color-scheme:light; --bg:#fff; --card:#fff; --ink:#000; --soft:#444; --rule:#ccc;
  --c1:#2563c9; --c2:#c4661f; --c3:#2b8a57; --c4:#8a4fb5; --c5:#5f6b7a; --good:#1f6b43; --bad:#98282b }
  body { max-width:none; padding:0; font-size:11pt } figure,.card,tr { break-inside:avoid } h2 { break-after:avoid } }
.good { color:var(--good) } .bad { color:var(--bad) } .dropped { text-decoration:line-through }
"""
