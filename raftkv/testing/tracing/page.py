"""A space-time diagram as one file for any browser, without scripts or links to other files."""

from __future__ import annotations

import math
from html import escape
from typing import TYPE_CHECKING

from raftkv.testing.tracing.svg import Drawing

if TYPE_CHECKING:
    from raftkv.testing.tracing.trace import Trace

SWITCHES = {
    "append": "entries",
    "answer": "answers",
    "vote": "votes",
    "read": "reads",
    "snapshot": "snapshots",
    "digest": "digests",
}
"""Groups of messages that can be hidden."""

STYLE = """
:root {
  color-scheme: light dark;
  --paper: #fff; --ink: #1c2128; --faint: #8b949e; --line: #d0d7de; --head: #f6f8fae6;
  --append: #0969da; --answer: #4c8f5b; --vote: #bf5b00; --read: #8250df; --snapshot: #b0338f; --digest: #6e7781;
  --bad: #cf222e; --good: #1a7f37; --lead: #bf8700;
}
@media (prefers-color-scheme: dark) {
  :root {
    --paper: #0d1117; --ink: #e6edf3; --faint: #8b949e; --line: #30363d; --head: #161b22e6;
    --append: #58a6ff; --answer: #6cc07c; --vote: #f0883e; --read: #bc8cff; --snapshot: #f778ba; --digest: #8b949e;
    --bad: #ff7b72; --good: #56d364; --lead: #e3b341;
  }
}
body { margin: 0; background: var(--paper); color: var(--ink); font: 13px/1.5 system-ui, sans-serif; }
header { padding: 16px 24px 8px; }
h1 { font-size: 18px; margin: 0 0 8px; }
pre { font: 12px/1.45 ui-monospace, monospace; white-space: pre-wrap; margin: 0 0 8px; max-height: 24em; overflow: auto;
  border-left: 3px solid var(--bad); padding-left: 12px; }
pre.kept { border-color: var(--good); }
p { margin: 4px 0; color: var(--faint); }
.switches { padding: 0 24px 8px; display: flow-root; }
.switches label { margin-right: 14px; white-space: nowrap; }
.key { display: inline-block; width: 18px; border-top: 3px solid; vertical-align: middle; margin-right: 5px; }
.names { position: sticky; top: 0; height: 28px; background: var(--head); border-bottom: 1px solid var(--line);
  z-index: 1; }
.names b { position: absolute; top: 4px; transform: translateX(-50%); }
.names i { position: absolute; top: 4px; font-style: normal; color: var(--faint); }
svg { display: block; }
svg text { font: 11px ui-monospace, monospace; fill: var(--ink); stroke: var(--paper); stroke-width: 3px;
  paint-order: stroke; stroke-linejoin: round; }
svg text.time { fill: var(--faint); text-anchor: end; }
.life { stroke: var(--faint); stroke-width: 1.5; }
.life.leader { stroke: var(--lead); stroke-width: 7; }
.life.candidate, .life.precandidate { stroke: var(--vote); stroke-width: 4; stroke-dasharray: 5 3; }
.life.starting { stroke-dasharray: 1 4; stroke-width: 2; }
.life.learner, .life.joined { stroke-dasharray: 6 3; }
.message line { stroke-width: 1.3; } .message line.lost { stroke-dasharray: 4 3; }
.message line.hit { stroke: transparent; stroke-width: 9; pointer-events: stroke; }
.message:hover line:not(.hit) { stroke-width: 3; }
.message.routine { opacity: .45; }
text.arrow { font-size: 10px; } text.lost { fill: var(--bad); text-anchor: middle; }
text.mark { text-anchor: middle; font-size: 14px; }
.crash text, .failed text { fill: var(--bad); font-weight: bold; } .crash .mark, .failed .mark { font-size: 17px; }
.elected text { fill: var(--lead); font-weight: bold; } .elected .mark { font-size: 19px; }
.commit text { fill: var(--good); } .role text, .term text { fill: var(--vote); }
.disk text, .clock text, .pause text { fill: var(--bad); }
.snapshot text, .install text, .members text { fill: var(--snapshot); }
.start text, .up text, .stop text { fill: var(--faint); }
.network line { stroke: var(--bad); stroke-dasharray: 6 4; } .world line { stroke-dasharray: 6 4; }
.broken line { stroke: var(--bad); stroke-width: 2; } .broken text { fill: var(--bad); font-weight: bold; }
html { scroll-padding-top: 80vh; }
.network text { fill: var(--bad); }
.broken line { stroke: var(--bad); stroke-width: 2; } .broken text { fill: var(--bad); font-weight: bold; }
#broken:target text { font-size: 13px; } html { scroll-padding-top: 80vh; }
.world line { stroke: var(--line); } .world text { fill: var(--faint); }
rect.cut { fill: var(--bad); } rect.call { fill: var(--append); } rect.call.refused { fill: var(--faint); }
rect.call.open { fill: none; stroke: var(--bad); stroke-dasharray: 3 2; }
"""


def html_diagram(
    trace: Trace, *, title: str, verdict: str, failed: bool, since: float = 0.0, until: float = math.inf
) -> str:
    """A page with the diagram of a trace between two times (in virtual seconds)."""
    drawing = Drawing(trace, since, until)
    names = "".join(f'<b style="left:{x}px">{escape(name)}</b>' for x, name in drawing.headings)
    hidden = "\n".join(
        f"body:has(#show-{name}:not(:checked)) .{'routine' if name == 'routine' else 'message.' + name}"
        " { display: none; }"
        for name in ("routine", *SWITCHES)
    )
    colours = "\n".join(
        f".message.{name} line:not(.hit) {{ stroke: var(--{name}); }} .key.{name} {{ color: var(--{name}); }} "
        f".message.{name} polygon, .message.{name} text.arrow {{ fill: var(--{name}); }}"
        for name in SWITCHES
    )
    way = ' <a href="#broken">To the failure</a>' if failed else ""
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(title)}</title>
<style>{STYLE}{colours}
{hidden}
</style>
</head>
<body>
<header>
<h1>{escape(title)}</h1>
<pre class="{"failed" if failed else "kept"}">{escape(verdict)}</pre>
<p>Time goes down, in virtual seconds; it is pressed together where nothing happens. Point at anything to read
more.{way}</p>
</header>
<div class="switches">{_switches()}</div>
<div class="names" style="width:{drawing.width}px"><i style="left:14px">seconds</i>{names}</div>
{drawing.svg()}
<div class="switches"><p>In the whole world: {escape(trace.summary())}</p></div>
</body>
</html>
"""


def _switches() -> str:
    shown = [
        f'<label><input type="checkbox" id="show-{name}" checked><span class="key {name}"></span>{text}</label>'
        for name, text in SWITCHES.items()
    ]
    shown.append('<label><input type="checkbox" id="show-routine">heartbeats and other routine</label>')
    shown.append(
        '<label><span class="key" style="color:var(--lead);border-top-width:7px"></span>leads</label>'
        '<label><span class="key" style="color:var(--vote);border-top-style:dashed"></span>campaigns</label>'
        '<label><span class="key" style="color:var(--faint)"></span>follows</label>'
        "<label>no line: down</label><label>✖ crash</label><label>★ elected</label><label>✓ commits</label>"
        "<label>✗ did not arrive</label>"
    )
    return "".join(shown)
