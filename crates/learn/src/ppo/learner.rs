//! A network with everything it needs to learn.

use crate::adam::VectorAdam;
use crate::{LearnError, Network, Reader};
use flipside_core::{Array, Arrays, Stream};

/// A network with its optimiser and the random stream that shuffles its minibatches. A checkpoint saves all of it.
#[derive(Clone)]
pub(super) struct Learner {
    pub network: Network,
    pub adam: VectorAdam,
    pub shuffle: Stream,
}

impl Learner {
    pub fn new(network: Network, eps: f64, shuffle: Stream) -> Learner {
        let adam = VectorAdam::new(network.layout().len(), eps);
        Learner { network, adam, shuffle }
    }

    pub fn to_arrays(&self, name: &str, free_name: &str, arrays: &mut Arrays) {
        self.network.to_arrays(name, free_name, arrays);
        self.adam.to_arrays(&format!("adam.{name}"), self.network.layout(), arrays);
        arrays.insert(format!("stream.{name}"), Array::u64(self.shuffle.state().to_vec()));
    }

    pub fn restored(&self, name: &str, free_name: &str, arrays: Reader) -> Result<Learner, LearnError> {
        Ok(Learner {
            network: self.network.restored(name, free_name, arrays)?,
            adam: self.adam.restored(&format!("adam.{name}"), self.network.layout(), arrays)?,
            shuffle: arrays.stream(&format!("stream.{name}"))?,
        })
    }
}
