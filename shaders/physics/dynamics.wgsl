// MuJoCo's equations, one file per stage, as in `src/physics/dynamics`: one forward evaluation of one world, from state
// and controls to accelerations and constraint forces. The solver starts from `qacc`.
#define_import_path physics::dynamics

#import physics::kinematics::{kinematics, motions}
#import physics::inertia::inertia
#import physics::bias::{velocities, bias}
#import physics::passive::passive
#import physics::actuation::actuation
#import physics::contact::contacts
#import physics::constraint::limits
#import physics::solve::accelerations

fn evaluate() {
    kinematics();
    motions();
    inertia();
    velocities();
    passive();
    bias();
    actuation();
    contacts();
    limits();
    accelerations();
}
