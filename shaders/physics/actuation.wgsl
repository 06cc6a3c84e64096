// Motors: gear · clip(ctrl), in joint space (mj_fwdActuation).
#define_import_path physics::actuation

#import physics::plan::{hold, plan, NV, MOTORS}
#import physics::workspace as ws

// Adds the actuators' forces to the smooth ones.
fn actuation() {
    for (var i = 0u; i < NV + hold; i++) {
        ws::actuator[i] = 0.0;
    }
    for (var k = 0u; k < MOTORS + hold; k++) {
        let held = clamp(ws::ctrl[k], plan.motors[k].low, plan.motors[k].high);
        ws::actuator[plan.motors[k].dof] += plan.motors[k].gear * held;
    }
    for (var i = 0u; i < NV + hold; i++) {
        ws::smooth_force[i] += ws::actuator[i];
    }
}
