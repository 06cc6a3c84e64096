// Steps a batch of worlds: holds every world's controls for an env step (`src/physics/lanes/group.rs`), in one dispatch
// or several.
#import physics::plan::THREADS
#import physics::integrate::advance
#import physics::derived::store
#import physics::team::sync
#import physics::batch::{batch, enter, give, take, world}
#ifdef IS_TEAM
#import physics::batch::{hand_over, take_over}
#endif

@compute @workgroup_size(THREADS)
fn main(@builtin(workgroup_id) id: vec3u, @builtin(local_invocation_index) index: u32) {
    if !enter(id.x, index) {
        return;
    }
#ifdef IS_TEAM
    if batch.first_round > 0u {
        take_over();
    }
#endif
    if batch.first_round == 0u {
        take();
    }
    sync();
    for (var round = batch.first_round; round < batch.end_round; round++) {
        advance(round);
    }
    if batch.end_round == batch.rounds {
        store(batch.kept, world * batch.kept.width);
        if batch.look == 0u {
            give();
        }
    }
#ifdef IS_TEAM
    if batch.end_round < batch.rounds {
        hand_over();
    }
#endif
}
