// The reward of a Gaussian process, one thread per env step of a rollout. All draws are linear in the same features:
// waves, inputs and products of inputs (`crates/preference/src/gaussian_process/features.rs`).
#import network::{forward, got, hold, take}
#import score::{MEMBERS, batch, scorer, see, tell, with_vote}

const LANES: u32 = #{LANES}u;
// Number of waves, the first features, and of all features, in vectors of four. In the scratch memory the outputs of
// the draws follow the features.
const WAVES: u32 = #{WAVES}u;
const FEATURES: u32 = #{FEATURES}u;

@compute @workgroup_size(LANES)
fn main(@builtin(global_invocation_id) id: vec3u) {
    let sample = batch.first + id.x;
    if sample >= batch.end {
        return;
    }
    take(id.x, batch.end - batch.first, batch.zero);
    let broken = see(sample, WAVES);
    forward(scorer.layers[0], WAVES, 0u, false);
    forward(scorer.layers[1], 0u, FEATURES, true);
    var votes = vec2f();
    for (var member = hold; member < MEMBERS; member++) {
        votes = with_vote(votes, member, got(FEATURES, member));
    }
    tell(sample, votes, broken);
}
