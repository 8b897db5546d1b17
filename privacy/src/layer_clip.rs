//! Clipping each layer of a model to a norm of its own.
//!
//! A whole update clipped to C loses its small layers when one layer is much longer than the others. Clipping layer l to
//! Cₗ bounds the whole by C = √ΣCₗ² (McMahan, Ramage, Talwar and Zhang, arXiv 1710.06963, section 3.1), and that one bound
//! is all that the rest of the pipeline and the accountant see. Flat clipping is better unless the norms of layers differ
//! by more than about ten times.

use crate::quantities::{ClipNorm, QuantityError};
use crate::update::{ClippedUpdate, Update};

/// One layer: a run of neighbouring coordinates.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Layer {
    /// Number of coordinates.
    pub len: usize,
    /// Norm that these coordinates are clipped to.
    pub clip: ClipNorm,
}

/// Why an update cannot be clipped layer by layer.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum LayerError {
    /// There are no layers, or their norms do not add up to a norm.
    #[error("the clip norms of the layers have no usable root of their squares' sum")]
    Total(#[from] QuantityError),
    /// The layers do not cover the update.
    #[error("the layers have {layers} coordinates together, but the update has {update}")]
    Dimension {
        /// Coordinates of all layers.
        layers: usize,
        /// Coordinates of the update.
        update: usize,
    },
}

/// The layers of a model, in order, with their clip norms.
#[derive(Debug, Clone, PartialEq)]
pub struct LayerClip {
    layers: Vec<Layer>,
    total: ClipNorm,
}

impl LayerClip {
    /// Layers whose lengths add up to the length of an update.
    ///
    /// # Errors
    /// [`LayerError::Total`] when there are none.
    pub fn new(layers: Vec<Layer>) -> Result<Self, LayerError> {
        let squares: f64 = layers.iter().map(|layer| layer.clip.get().powi(2)).sum();
        let total = ClipNorm::new(squares.sqrt())?;
        Ok(Self { layers, total })
    }

    /// The bound C = √ΣCₗ² of the whole update, for its [`PrivateGrid`](crate::grid::PrivateGrid).
    #[must_use]
    pub const fn total(&self) -> ClipNorm {
        self.total
    }

    /// Scales down each layer that is longer than its norm.
    ///
    /// # Errors
    /// [`LayerError::Dimension`] when the layers do not cover the update.
    pub fn clip(&self, update: Update) -> Result<ClippedUpdate, LayerError> {
        let layers = self.layers.iter().map(|layer| layer.len).sum();
        if update.values().len() != layers {
            return Err(LayerError::Dimension { layers, update: update.values().len() });
        }
        // Scaling rounds to single precision, so the whole may be a ten-millionth longer than C, and is clipped again.
        Ok(update.scale_layers(&self.layers).clip(self.total))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::grid::PrivateGrid;
    use crate::prg::Key;

    fn layer(len: usize, clip: f64) -> Layer {
        Layer { len, clip: ClipNorm::new(clip).unwrap() }
    }

    #[test]
    fn every_layer_gets_its_own_norm_and_the_whole_their_root() {
        let clip = LayerClip::new(vec![layer(2, 0.5), layer(0, 1.0), layer(1, 12.0)]).unwrap();
        assert_eq!(clip.total().get(), 145.25_f64.sqrt());
        let clipped = clip.clip(Update::new(vec![3.0, 4.0, -7.0]).unwrap()).unwrap();
        let grid = PrivateGrid::new(clip.total(), 3, 1).unwrap();
        let step = grid.step();
        let q = clipped.quantize(&grid, &mut Key::from_seed(1).stream()).unwrap();
        for (&q, expected) in q.coordinates().iter().zip([0.3, 0.4, -7.0]) {
            assert!((f64::from(q) * step - expected).abs() < 2.0 * step);
        }
    }

    #[test]
    fn layers_that_fill_their_norms_pass_the_norm_test_of_the_whole() {
        let clip = LayerClip::new((1..50).map(|i| layer(7, 1.0 / f64::from(i))).collect()).unwrap();
        let grid = PrivateGrid::new(clip.total(), 343, 1).unwrap();
        let update = Update::new((0..343).map(|i| (i as f32 * 1e6).sin() * 1e9).collect()).unwrap();
        let q = clip.clip(update).unwrap().quantize(&grid, &mut Key::from_seed(2).stream()).unwrap();
        let norm = (q.norm_squared() as f64).sqrt() / crate::grid::STEPS_PER_CLIP as f64;
        assert!((0.9999..1.00001).contains(&norm), "{norm}");
    }

    #[test]
    fn layers_that_do_not_cover_the_update_are_refused() {
        let clip = LayerClip::new(vec![layer(2, 1.0)]).unwrap();
        let update = Update::new(vec![1.0; 3]).unwrap();
        assert_eq!(clip.clip(update), Err(LayerError::Dimension { layers: 2, update: 3 }));
        assert!(matches!(LayerClip::new(vec![]), Err(LayerError::Total(_))));
    }
}
