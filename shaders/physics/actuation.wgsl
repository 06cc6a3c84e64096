// Motors: gear · clip(ctrl), in joint space (mj_fwdActuation).
#define_import_path physics::actuation

#import physics::plan::{hold, plan, NV, MOTORS}
#import physics::workspace::{group, lane, workspaces}

// Adds the actuators' forces to the smooth ones.
fn actuation() {
    let ws = &workspaces[group];
    for (var i = hold; i < NV; i++) {
        ws.actuator[i][lane] = 0.0;
    }
    for (var k = hold; k < MOTORS; k++) {
        let held = clamp(ws.ctrl[k][lane], plan.motors[k].low, plan.motors[k].high);
        ws.actuator[plan.motors[k].dof][lane] += plan.motors[k].gear * held;
    }
    for (var i = hold; i < NV; i++) {
        ws.smooth_force[i][lane] += ws.actuator[i][lane];
    }
}
