// A batch of worlds, a thread each: holds every world's controls for an env step (`src/physics/lanes/group.rs`), in one dispatch or several.
#import physics::plan::LANES
#import physics::integrate::advance
#import physics::derived::store
#import physics::batch::{batch, enter, give, take, world}

@compute @workgroup_size(LANES)
fn main(@builtin(workgroup_id) id: vec3u, @builtin(local_invocation_index) index: u32) {
    if !enter(id.x, index) {
        return;
    }
    if batch.first_round == 0u {
        take();
    }
    for (var round = batch.first_round; round < batch.end_round; round++) {
        advance(round);
    }
    if batch.end_round == batch.rounds {
        store(batch.kept, world * batch.kept.width);
        if batch.look == 0u {
            give();
        }
    }
}
