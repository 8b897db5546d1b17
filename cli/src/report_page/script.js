// Under the pointer every chart tells its numbers; without this script they are all there, but for these.
for (const figure of document.querySelectorAll('figure[data-series]')) {
  const series = JSON.parse(figure.dataset.series);
  const plot = figure.querySelector('.plot'), line = plot.querySelector('i'), output = figure.querySelector('output');
  const last = output.textContent;
  const rounds = [...new Set(series.flatMap(one => one.points.map(point => point[0])))].sort((one, other) => one - other);
  const first = rounds[0], range = Math.max(rounds[rounds.length - 1] - first, 1);
  plot.addEventListener('pointermove', event => {
    const box = plot.getBoundingClientRect();
    const wanted = first + range * (event.clientX - box.left) / box.width;
    const round = rounds.reduce((best, round) => Math.abs(round - wanted) < Math.abs(best - wanted) ? round : best);
    const told = series.map(one => {
      const point = one.points.find(point => point[0] === round);
      return point && `${one.name} ${+point[1].toPrecision(4)}`;
    });
    output.textContent = [`round ${round}`, ...told.filter(Boolean)].join(' · ');
    line.style.left = `${100 * (round - first) / range}%`;
    line.style.opacity = .6;
  });
  plot.addEventListener('pointerleave', () => { output.textContent = last; line.style.opacity = 0; });
}
