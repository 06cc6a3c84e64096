// One stage of one round of a step. What step.wgsl does in one dispatch, these kernels do in many, so that each stage
// can be timed. Only benches and tests run them, and only if each thread has its own world, because a team's workspace
// does not outlive the dispatch.
#import physics::plan::THREADS
#import physics::kinematics::{kinematics, motions}
#import physics::inertia::inertia
#import physics::bias::{velocities, bias}
#import physics::passive::passive
#import physics::actuation::actuation
#import physics::contact::contacts
#import physics::constraint::limits
#import physics::solve::accelerations
#import physics::integrate::{begin, finish, STAGES}
#import physics::derived::store
#import physics::batch::{batch, enter, give, take, world}

@compute @workgroup_size(THREADS)
fn main(@builtin(workgroup_id) id: vec3u, @builtin(local_invocation_index) index: u32) {
    if !enter(id.x, index) {
        return;
    }
#ifdef STAGE_STATE
    // Before the first round and after the last one.
    if batch.first_round == 0u {
        take();
        begin(0u);
    } else {
        store(batch.kept, world * batch.kept.width);
        give();
    }
#endif
#ifdef STAGE_KINEMATICS
    kinematics();
    motions();
#endif
#ifdef STAGE_INERTIA
    inertia();
#endif
#ifdef STAGE_FORCES
    velocities();
    passive();
    bias();
    actuation();
#endif
#ifdef STAGE_CONTACTS
    contacts();
    limits();
#endif
#ifdef STAGE_SOLVE
    accelerations();
#endif
#ifdef STAGE_INTEGRATE
    finish(batch.first_round % STAGES);
    begin((batch.first_round + 1u) % STAGES);
#endif
}
