//! The Jeffreys interval of a success probability (Brown, Cai and DasGupta, "Interval estimation for a binomial proportion", 2001).

/// The upper end of the one-sided interval: after `successes` in `trials` the probability of success is at most this, with about this
/// confidence. It is a quantile of the beta law with parameters `successes` + 1/2 and `trials` − `successes` + 1/2.
pub(super) fn at_most(successes: u64, trials: u64, confidence: f64) -> f64 {
    let law = Beta { a: successes as f64 + 0.5, b: (trials - successes) as f64 + 0.5 };
    let (mut low, mut high) = (0.0, 1.0);
    for _ in 0..BISECTIONS {
        let middle = 0.5 * (low + high);
        match law.cdf(middle) < confidence {
            true => low = middle,
            false => high = middle,
        }
    }
    high
}

/// The beta law.
#[derive(Clone, Copy)]
struct Beta {
    a: f64,
    b: f64,
}

impl Beta {
    /// The regularised incomplete beta function of `x`, from the side on which its continued fraction converges fast.
    fn cdf(self, x: f64) -> f64 {
        match x < (self.a + 1.0) / (self.a + self.b + 2.0) {
            true => self.tail(x),
            false => 1.0 - Beta { a: self.b, b: self.a }.tail(1.0 - x),
        }
    }

    /// xᵃ (1 − x)ᵇ / (a B(a, b)) times the continued fraction 8.17.22 of the NIST Handbook, evaluated by Lentz's method.
    fn tail(self, x: f64) -> f64 {
        let Beta { a, b } = self;
        let scale = libm::lgamma(a + b) - libm::lgamma(a) - libm::lgamma(b) + a * x.ln() + b * (-x).ln_1p();
        let (mut above, mut below, mut fraction) = (1.0, 0.0, 1.0);
        for term in 0..TERMS {
            let m = f64::from(term / 2);
            let coefficient = match term {
                0 => 1.0,
                _ if term % 2 == 0 => m * (b - m) * x / ((a + 2.0 * m - 1.0) * (a + 2.0 * m)),
                _ => -(a + m) * (a + b + m) * x / ((a + 2.0 * m) * (a + 2.0 * m + 1.0)),
            };
            below = 1.0 / (1.0 + coefficient * below);
            above = 1.0 + coefficient / above;
            let change = above * below;
            fraction *= change;
            if (change - 1.0).abs() < f64::EPSILON {
                break;
            }
        }
        scale.exp() * (fraction - 1.0) / a
    }
}

/// As many as an f64 has digits, and some for small probabilities.
const BISECTIONS: u32 = 80;
/// More than the square root of the largest number of trials that anybody has canaries for.
const TERMS: u32 = 10_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_agree_with_reference_values() {
        // scipy 1.17, stats.beta.ppf
        for (successes, trials, confidence, expected) in [
            (0, 10, 0.95, 0.1707731082448478),
            (3, 10, 0.95, 0.558126766484634),
            (10, 10, 0.95, 0.9998082637110255),
            (500, 1000, 0.95, 0.5259833489279497),
            (1, 100_000, 0.975, 4.674104248195043e-5),
        ] {
            let found = at_most(successes, trials, confidence);
            assert!((found / expected - 1.0).abs() < 1e-9, "{successes} of {trials}: {found} and {expected}");
        }
    }

    #[test]
    fn the_interval_covers_the_truth_about_as_often_as_it_says() {
        // Exactly, by the binomial law.
        let (trials, mut least) = (50_u64, 1.0_f64);
        for truth in [0.02, 0.1, 0.3, 0.5, 0.8] {
            let probability = |successes: u64| -> f64 {
                let (n, k) = (trials as f64, successes as f64);
                let ways = libm::lgamma(n + 1.0) - libm::lgamma(k + 1.0) - libm::lgamma(n - k + 1.0);
                (ways + k * f64::ln(truth) + (n - k) * f64::ln_1p(-truth)).exp()
            };
            let covered: f64 =
                (0..=trials).filter(|k| at_most(*k, trials, 0.95) >= truth).map(probability).sum();
            least = least.min(covered);
        }
        assert!((0.9..0.99).contains(&least), "{least}");
    }
}
