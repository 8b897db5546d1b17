//! The privacy loss of one release, cut into cells of equal width.
//!
//! For neighbouring inputs with output distributions P and Q the privacy loss of an output is ln(dP/dQ). A cell
//! [e, e + Δ) keeps the probability `p` that P gives to losses in it, and the excess p − e^e·r over the probability `r`
//! under Q, which determines r. A distribution on the grid that preserves both p and r dominates the original
//! (Doroshenko, Ghazi, Kamath, Kumar and Manurangsi 2022, arXiv 2207.04380, "connect the dots").

use super::pmf::Pmf;

/// Equally spaced losses iΔ, for whole i in `first..=last`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Grid {
    pub(crate) width: f64,
    pub(crate) first: i64,
    pub(crate) last: i64,
}

/// Probabilities of the same outputs under P and Q.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(crate) struct Mass {
    pub(crate) p: f64,
    pub(crate) r: f64,
}

/// One cell [e, e + Δ): its probability under P, and p − e^e·r, which lies between 0 and p(1 − e^−Δ).
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(crate) struct Cell {
    pub(crate) p: f64,
    pub(crate) excess: f64,
}

/// The loss of one release: what lies below, in and above the grid.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Cells {
    pub(crate) grid: Grid,
    pub(crate) below: Mass,
    pub(crate) cells: Vec<Cell>,
    pub(crate) above: Mass,
}

impl Grid {
    /// The grid that covers losses from `low` to `high`.
    pub(crate) fn covering(low: f64, high: f64, width: f64) -> Self {
        let first = (low / width).floor() as i64;
        let last = (high / width).ceil() as i64;
        Self { width, first, last: last.max(first + 1) }
    }

    /// The smallest grid that covers both; the widths are equal.
    pub(crate) fn union(self, other: Self) -> Self {
        Self { width: self.width, first: self.first.min(other.first), last: self.last.max(other.last) }
    }

    pub(crate) fn cell_count(self) -> usize {
        (self.last - self.first) as usize
    }

    /// All losses on the grid, rising.
    pub(crate) fn losses(self) -> impl Iterator<Item = f64> {
        (self.first..=self.last).map(move |index| index as f64 * self.width)
    }

    /// e^{rate·loss + shift} for all losses on the grid, rising.
    pub(crate) fn exponentials(self, rate: f64, shift: f64) -> impl Iterator<Item = f64> {
        exponentials(rate * self.width, self.first as f64 * rate * self.width + shift, self.cell_count() + 1)
    }
}

impl Cells {
    pub(crate) fn empty(grid: Grid) -> Self {
        Self {
            grid,
            below: Mass::default(),
            cells: vec![Cell::default(); grid.cell_count()],
            above: Mass::default(),
        }
    }

    /// Cells from their masses, which are in the order of the grid.
    pub(crate) fn from_masses(
        grid: Grid,
        below: Mass,
        masses: impl Iterator<Item = Mass>,
        above: Mass,
    ) -> Self {
        let odds = grid.exponentials(1.0, 0.0);
        let cells = odds.zip(masses).map(|(odds, mass)| Cell::new(odds, mass, grid.width)).collect();
        Self { grid, below, cells, above }
    }

    /// Adds outputs that all have the same loss, ln(p/r).
    pub(crate) fn add_atom(&mut self, loss: f64, mass: Mass) {
        let index = (loss / self.grid.width).floor() as i64;
        if index < self.grid.first {
            self.below.add(mass);
        } else if index >= self.grid.last {
            self.above.add(mass);
        } else {
            let cell = &mut self.cells[(index - self.grid.first) as usize];
            let inside = loss - index as f64 * self.grid.width;
            cell.p += mass.p;
            cell.excess += mass.p * -(-inside).exp_m1();
        }
    }

    /// The loss of choosing between mechanisms in public: this with probability 1 − `weight`, `other` with `weight`.
    pub(crate) fn mix(&mut self, other: &Self, weight: f64) {
        assert_eq!(self.grid, other.grid, "mixed losses share a grid");
        self.below.mix(other.below, weight);
        self.above.mix(other.above, weight);
        for (cell, added) in self.cells.iter_mut().zip(&other.cells) {
            cell.p += weight * (added.p - cell.p);
            cell.excess += weight * (added.excess - cell.excess);
        }
    }

    /// The loss with the roles of P and Q exchanged: the other direction of the neighbouring relation.
    pub(crate) fn reversed(&self) -> Self {
        let width = self.grid.width;
        let grid = Grid { width, first: -self.grid.last, last: -self.grid.first };
        let most = -(-width).exp_m1();
        let cells = self.grid.exponentials(-1.0, 0.0).zip(&self.cells).map(|(to_q, cell)| Cell {
            p: to_q * (cell.p - cell.excess),
            excess: (to_q * (cell.p * most - cell.excess)).max(0.0),
        });
        let mut cells: Vec<Cell> = cells.collect();
        cells.reverse();
        Self { grid, below: self.above.exchanged(), cells, above: self.below.exchanged() }
    }

    /// A distribution on the grid that dominates the loss: never less private than it claims.
    ///
    /// Each cell is split onto its two ends so that p and r are preserved. Losses below the grid rise to its first
    /// point; of those above, what the last point can hold of r stays there and the rest becomes infinite.
    pub(crate) fn pessimistic(&self) -> Pmf {
        let most = -(-self.grid.width).exp_m1();
        let mut masses = vec![0.0; self.cells.len() + 1];
        masses[0] = self.below.p;
        for (index, cell) in self.cells.iter().enumerate() {
            let upper = (cell.excess / most).min(cell.p);
            masses[index] += cell.p - upper;
            masses[index + 1] += upper;
        }
        let finite = (self.above.r * (self.grid.last as f64 * self.grid.width).exp()).min(self.above.p);
        masses[self.cells.len()] += finite;
        Pmf::new(self.grid, masses, self.above.p - finite)
    }

    /// A distribution on the grid that the loss dominates: never more private than it is.
    ///
    /// Outputs around a grid point are merged, as any post-processing may do, so that the merged loss is exactly that
    /// point: part of the cell below it, which lacks e^e·r − p, with a part of the cell above it, whose excess balances.
    /// Merging from both ends towards the likeliest cell leaves little, because each cell then meets a larger one. The
    /// rest is merged with what was put on the second point above it, as far as that goes; what is left then
    /// moves down to the start of its cell. Losses under the grid become −∞.
    pub(crate) fn optimistic(&self) -> Pmf {
        let last = self.cells.len();
        let mut parts: Vec<Part> = self.cells.iter().map(|cell| Part::of(*cell, self.grid.width)).collect();
        let top = self.grid.last as f64 * self.grid.width;
        parts.push(Part {
            p: self.above.p,
            excess: self.above.p - self.above.r * top.exp(),
            lack: 0.0,
            left: 1.0,
        });
        let likeliest = (0..last).max_by(|a, b| self.cells[*a].p.total_cmp(&self.cells[*b].p)).unwrap_or(0);
        let mut masses = vec![0.0; last + 1];
        for point in (1..=likeliest).chain((likeliest + 1..=last).rev()).chain([likeliest.max(1)]) {
            masses[point] += Part::balance(&mut parts, point);
        }
        for (below, part) in parts.iter_mut().enumerate().take(last.saturating_sub(1)) {
            part.lift(&mut masses[below + 1..=below + 2], self.grid.width);
        }
        for (mass, part) in masses.iter_mut().zip(&parts) {
            *mass += part.left * part.p;
        }
        Pmf::new(self.grid, masses, 0.0)
    }
}

/// e^{start + k·step} for k below `count`: one exponential for every [`BLOCK`] and a product for each.
pub(crate) fn exponentials(step: f64, start: f64, count: usize) -> impl Iterator<Item = f64> {
    let within: [f64; BLOCK] = std::array::from_fn(|offset| (offset as f64 * step).exp());
    let blocks = (0..count).step_by(BLOCK).map(move |block| (start + block as f64 * step).exp());
    blocks.flat_map(move |block| within.map(|factor| block * factor)).take(count)
}

const BLOCK: usize = 64;

/// A cell while it is being merged with its neighbours.
struct Part {
    p: f64,
    /// p − e^e·r at the start of the cell.
    excess: f64,
    /// e^e·r − p at its end.
    lack: f64,
    /// The share that is not merged yet.
    left: f64,
}

impl Part {
    fn of(cell: Cell, width: f64) -> Self {
        let lack = width.exp_m1() * cell.p - width.exp() * cell.excess;
        Self { p: cell.p, excess: cell.excess, lack: lack.max(0.0), left: 1.0 }
    }

    /// Merges what is left with a part of the second point above it, onto the first.
    fn lift(&mut self, points: &mut [f64], width: f64) {
        let lack = self.left * self.lack;
        if lack <= 0.0 {
            return;
        }
        let excess_share = -(-width).exp_m1();
        let lifted = (points[1].max(0.0) * excess_share / lack).min(1.0);
        let taken = lifted * lack / excess_share;
        points[0] += lifted * self.left * self.p + taken;
        points[1] -= taken;
        self.left *= 1.0 - lifted;
    }

    /// Merges as much as balances at a grid point, between the cells that end and start there; gives its probability.
    fn balance(parts: &mut [Self], point: usize) -> f64 {
        let lack = parts[point - 1].left * parts[point - 1].lack;
        let excess = parts[point].left * parts[point].excess;
        let most = lack.min(excess);
        if most <= 0.0 {
            return 0.0;
        }
        let (below, above) = (most / lack, most / excess);
        let merged =
            below * parts[point - 1].left * parts[point - 1].p + above * parts[point].left * parts[point].p;
        parts[point - 1].left *= 1.0 - below;
        parts[point].left *= 1.0 - above;
        merged
    }
}

impl Mass {
    fn add(&mut self, other: Self) {
        self.p += other.p;
        self.r += other.r;
    }

    fn mix(&mut self, other: Self, weight: f64) {
        self.p += weight * (other.p - self.p);
        self.r += weight * (other.r - self.r);
    }

    fn exchanged(self) -> Self {
        Self { p: self.r, r: self.p }
    }
}

impl Cell {
    /// The cell that starts at the loss ln(`odds`).
    fn new(odds: f64, mass: Mass, width: f64) -> Self {
        let p = mass.p.max(0.0);
        let most = p * -(-width).exp_m1();
        Self { p, excess: (p - odds * mass.r).clamp(0.0, most) }
    }
}
