// Under the pointer every chart tells its numbers; without this script they are all there, but for these.
for (const figure of document.querySelectorAll('figure[data-series]')) {
  const series = JSON.parse(figure.dataset.series);
  const plot = figure.querySelector('.plot'), line = plot.querySelector('i'), output = figure.querySelector('output');
  const last = output.innerHTML;
  const place = 'logarithmic' in figure.dataset ? Math.log10 : at => at;
  const places = [...new Set(series.flatMap(one => one.points.map(point => point[0])))].sort((one, other) => one - other);
  const first = place(places[0]), range = place(places[places.length - 1]) - first || 1;
  plot.addEventListener('pointermove', event => {
    const box = plot.getBoundingClientRect();
    const wanted = first + range * (event.clientX - box.left) / box.width;
    const at = places.reduce((best, at) => Math.abs(place(at) - wanted) < Math.abs(place(best) - wanted) ? at : best);
    const told = series.map(one => {
      const point = one.points.find(point => point[0] === at);
      return point && `${one.name} ${+point[1].toPrecision(4)}`;
    });
    output.textContent = [`${figure.dataset.x} ${+at.toPrecision(8)}`, ...told.filter(Boolean)].join(' · ');
    line.style.left = `${100 * (place(at) - first) / range}%`;
    line.style.opacity = .6;
  });
  plot.addEventListener('pointerleave', () => { output.innerHTML = last; line.style.opacity = 0; });
}
