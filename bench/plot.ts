/** Bar charts as SVG, readable on light and on dark pages: the card brings its own background. */

export interface Bar {
  name: string;
  value: number;
  /** Where a thin line ends that begins at the bar's end: the 99th percentile, the best round. */
  whisker?: number;
  isOurs?: boolean;
}

export interface Plot {
  title: string;
  unit: string;
  /** Groups under a heading of their own; one without a heading has an empty one. */
  groups: { heading: string; bars: Bar[] }[];
}

const WIDTH = 760;
const LABELS = 280;
/** For the figure at the end of a bar. */
const FIGURES = 110;
const ROW = 24;
const PADDING = 16;

const STYLE = `
  .card { fill: #ffffff; stroke: #d0d7de; }
  text { fill: #1f2328; font: 13px system-ui, sans-serif; }
  .title { font-size: 15px; font-weight: 600; }
  .heading { font-weight: 600; }
  .bar { fill: #9aa7b4; }
  .ours { fill: #2f7ed8; }
  .whisker { stroke: #57606a; stroke-width: 1.5; }
  @media (prefers-color-scheme: dark) {
    .card { fill: #161b22; stroke: #3d444d; }
    text { fill: #e6edf3; }
    .bar { fill: #6b7785; }
    .ours { fill: #4c9aff; }
    .whisker { stroke: #b1bac4; }
  }`;

export function drawBars({ title, unit, groups }: Plot, figure: (value: number) => string): string {
  const bars = groups.flatMap((group) => group.bars);
  const scale = (WIDTH - LABELS - FIGURES - 2 * PADDING) / Math.max(...bars.map((bar) => bar.whisker ?? bar.value));
  let y = PADDING + 14;
  const lines = [text(PADDING, y, `${title} (${unit})`, 'title')];
  for (const { heading, bars: own } of groups) {
    if (heading !== '') {
      y += ROW + 6;
      lines.push(text(PADDING, y, heading, 'heading'));
    }
    for (const bar of own) {
      y += ROW;
      lines.push(drawBar(bar, y, scale, figure));
    }
  }
  const height = y + PADDING;
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${height}" width="${WIDTH}" height="${height}" role="img">
<title>${escape(title)}</title>
<style>${STYLE}
</style>
<rect class="card" x="0.5" y="0.5" width="${WIDTH - 1}" height="${height - 1}" rx="8"/>
${lines.join('\n')}
</svg>
`;
}

function drawBar(
  { name, value, whisker, isOurs }: Bar,
  y: number,
  scale: number,
  figure: (value: number) => string,
): string {
  const left = PADDING + LABELS;
  const end = left + Math.max(1, value * scale);
  const tip = whisker === undefined ? end : left + whisker * scale;
  const line = `<path class="whisker" d="M${end.toFixed(1)} ${y - 5}H${tip.toFixed(1)}m0 -4v8"/>`;
  return [
    text(left - 8, y, name, 'label', 'end'),
    `<rect class="${isOurs ? 'bar ours' : 'bar'}" x="${left}" y="${y - 13}" width="${(end - left).toFixed(1)}" height="16"/>`,
    ...(whisker === undefined ? [] : [line]),
    text(Math.max(end, tip) + 8, y, figure(value), 'figure'),
  ].join('\n');
}

function text(x: number, y: number, content: string, kind: string, anchor = 'start'): string {
  return `<text class="${kind}" x="${x.toFixed(1)}" y="${y}" text-anchor="${anchor}">${escape(content)}</text>`;
}

const escape = (content: string): string =>
  content.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;');
