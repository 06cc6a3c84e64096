//! Named seed streams: one seed gives one run. `cargo run --release -p flipside-core --example seed_streams`

use flipside_core::{Seed, Stream};
use rand::RngExt;

fn main() {
    let seed = Seed(7);
    // One stream for each use. How much one of them draws changes nothing in another.
    let mut resets = seed.stream("resets");
    let mut noise = seed.stream("noise");
    let angle: f64 = resets.random_range(-0.1..0.1);
    println!("a reset at {angle:.4} rad, then noise {:?}", [noise.random::<f32>(), noise.random::<f32>()]);

    // A stream is four words: a checkpoint keeps them, and the run goes on as if it had never stopped.
    let saved = noise.state();
    let next: [u32; 3] = std::array::from_fn(|_| noise.random());
    let mut restored = Stream::from_state(saved);
    assert_eq!(next, std::array::from_fn(|_| restored.random::<u32>()));
    println!("the next three draws, before and after a restart: {next:?}");

    // A world's seed depends on its number alone, not on how many worlds run beside it.
    for world in 0..3 {
        println!(
            "world {world}: {:?}, first draw {}",
            seed.world(world),
            seed.world(world).stream("reset").random::<u32>()
        );
    }
}
