// The reward of an ensemble of networks, one thread per env step of a rollout (`crates/preference/src/ensemble.rs`).
#import network::{forward, got, hold, take}
#import score::{MEMBERS, batch, scorer, see, tell, with_vote}

const LANES: u32 = #{LANES}u;
// Layers of one member. The layers are stored member after member.
const LAYERS: u32 = #{LAYERS}u;
// Outputs of the widest layer, in vectors of four. In the scratch memory they follow the inputs, which take FEATURES
// vectors.
const WIDEST: u32 = #{WIDEST}u;
const FEATURES: u32 = #{FEATURES}u;

@compute @workgroup_size(LANES)
fn main(@builtin(global_invocation_id) id: vec3u) {
    let sample = batch.first + id.x;
    if sample >= batch.end {
        return;
    }
    take(id.x, batch.end - batch.first, batch.zero);
    let broken = see(sample, 0u);
    var votes = vec2f();
    for (var member = hold; member < MEMBERS; member++) {
        votes = with_vote(votes, member, output(member));
    }
    tell(sample, votes, broken);
}

// A member's output for this thread's env step.
fn output(member: u32) -> f32 {
    var start = 0u;
    var to = FEATURES;
    for (var layer = hold; layer < LAYERS; layer++) {
        forward(scorer.layers[member * LAYERS + layer], start, to, layer + 1u == LAYERS);
        start = to;
        to = select(FEATURES, FEATURES + WIDEST, start == FEATURES);
    }
    return got(start, 0u);
}
