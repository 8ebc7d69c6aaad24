"""The look of the training report: one style sheet, by day and by night, from a phone to a wide screen."""

STYLE = """
:root{--paper:#fbfaf8;--card:#fff;--ink:#1d1f23;--soft:#5f646d;--line:#e4e1dc;--base:#7a808a;--current:#2f6fdb;
--new:#c2501c;--ok:#1a7f4b;--no:#b3261e;--one:#eceae6;--two:#fbe6da}
@media (prefers-color-scheme:dark){:root{--paper:#15171a;--card:#1d2024;--ink:#e8e6e3;--soft:#9aa0a9;--line:#30343a;
--base:#9aa0a9;--current:#7aa8ff;--new:#ff9a5c;--ok:#5fd19a;--no:#ff8a80;--one:#2a2e33;--two:#3d2c22}}
*{box-sizing:border-box}
body{margin:0;background:var(--paper);color:var(--ink);font:16px/1.55 system-ui,-apple-system,"Segoe UI",sans-serif}
main{max-width:68rem;margin:0 auto;padding:2.5rem 1.25rem 5rem}
h1{font-size:clamp(1.7rem,5vw,2.6rem);line-height:1.15;margin:.2rem 0 .8rem;letter-spacing:-.02em;
overflow-wrap:anywhere}
h2{font-size:1.3rem;margin:3rem 0 1rem;letter-spacing:-.01em}
h3{font-size:.95rem;margin:0 0 .4rem}
p{margin:.5rem 0}
.kicker,.note,figcaption,.what{color:var(--soft);font-size:.86rem}
.lead{font-size:1.12rem;max-width:44rem}
.badge{display:inline-block;font-size:.85rem;font-weight:600;letter-spacing:0;padding:.2rem .7rem;border-radius:1rem;
border:1.5px solid;vertical-align:middle;white-space:nowrap}
.badge.ok{color:var(--ok)}.badge.no{color:var(--no)}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(10.5rem,1fr));gap:.8rem;margin-top:1.6rem}
.tile,figure,article{background:var(--card);border:1px solid var(--line);border-radius:.7rem}
.tile{padding:.8rem 1rem}.tile p{margin:0}
.figure{font-size:1.3rem;white-space:nowrap;font-weight:650;font-variant-numeric:tabular-nums;letter-spacing:-.01em}
.reasons{list-style:none;padding:0;margin:0}
.reasons li{padding:.35rem 0 .35rem 1.8rem;position:relative}
.reasons li::before{position:absolute;left:.2rem;font-weight:700}
.reasons .ok::before{content:"✓";color:var(--ok)}.reasons .no::before{content:"✗";color:var(--no)}
.pair{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,25rem),1fr));gap:1rem}
figure{margin:0;padding:1rem 1rem .8rem}
figure.single{max-width:34rem}
svg{width:100%;height:auto;display:block}
.grid{stroke:var(--line);stroke-width:1}
.mark{stroke:var(--soft);stroke-width:1;stroke-dasharray:4 4}
.tick,.label{fill:var(--soft);font-size:12px;font-family:inherit}
.label{fill:var(--ink)}
.line{fill:none;stroke-width:2;stroke-linejoin:round}
.whisker{stroke-width:3;stroke-linecap:round;opacity:.55}
.line.new,.whisker.new{stroke:var(--new)}.line.current,.whisker.current{stroke:var(--current)}
.line.base,.whisker.base{stroke:var(--base)}
.dot.new{fill:var(--new)}.dot.current{fill:var(--current)}.dot.base{fill:var(--base)}
span.new,.who.new{color:var(--new);font-weight:600}span.current,.who.current{color:var(--current);font-weight:600}
span.base,.who.base{color:var(--base);font-weight:600}
article{padding:1rem;margin:0 0 1rem}
.talk{display:flex;flex-direction:column;gap:.35rem;margin-bottom:.9rem}
.turn{margin:0;padding:.4rem .8rem;border-radius:.9rem;max-width:min(40rem,88%);overflow-wrap:anywhere}
.turn.one{background:var(--one);align-self:flex-start;border-bottom-left-radius:.2rem}
.turn.two{background:var(--two);align-self:flex-end;border-bottom-right-radius:.2rem}
.replies{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,13rem),1fr));gap:.9rem;
border-top:1px solid var(--line);padding-top:.8rem}
.reply p{margin:0;overflow-wrap:anywhere}.who{font-size:.82rem;color:var(--soft)}
.truth{color:var(--soft)}
.wide{overflow-x:auto}
table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums}
th,td{text-align:left;padding:.3rem .8rem .3rem 0;border-bottom:1px solid var(--line);font-size:.92rem}
.figures{margin:.5rem 0 .3rem}.figures th,.figures td{border:0;padding:.1rem .6rem .1rem 0;font-size:.86rem}
.figures th{font-weight:600;white-space:nowrap;width:38%}.figures th:not(.who){font-weight:400;color:var(--soft)}
.figures td:last-child{color:var(--soft);text-align:right;padding-right:0;white-space:nowrap}
.stats .n{text-align:right}.stats .bar{width:50%}
.bar span{display:block;height:.75rem;border-radius:.2rem;min-width:2px}
.bar .base{background:var(--base)}.bar .new{background:var(--new)}.bar .lost{background:var(--line)}
pre{background:var(--card);border:1px solid var(--line);border-radius:.7rem;padding:.9rem 1rem;white-space:pre-wrap;
overflow-wrap:anywhere;font-size:.88rem}
dl{display:grid;grid-template-columns:minmax(6rem,max-content) 1fr;gap:.3rem 1.2rem;font-size:.92rem}
dt{color:var(--soft)}dd{margin:0;overflow-wrap:anywhere}
@media (max-width:480px){main{padding:1.5rem .9rem 3rem}.figure{font-size:1.12rem}.tick,.label{font-size:16px}
.stats .bar{width:32%}}
"""
