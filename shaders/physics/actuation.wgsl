// Motors: gear · clip(ctrl), in joint space (mj_fwdActuation).
#define_import_path physics::actuation

#import physics::plan::{hold, plan, NV, MOTORS, TEAM}
#import physics::team::member
#import physics::workspace::{group, lane, workspaces}

// Adds the actuators' forces to the smooth ones.
fn actuation() {
    let ws = &workspaces[group];
    for (var i = member + hold; i < NV; i += TEAM) {
        ws.actuator[i][lane] = 0.0;
    }
    // Several motors may drive one degree of freedom. The same member handles all of them.
    for (var k = hold; k < MOTORS; k++) {
        let dof = plan.motors[k].dof;
        if dof % TEAM == member {
            let held = clamp(ws.ctrl[k][lane], plan.motors[k].low, plan.motors[k].high);
            ws.actuator[dof][lane] += plan.motors[k].gear * held;
        }
    }
    for (var i = member + hold; i < NV; i += TEAM) {
        ws.smooth_force[i][lane] += ws.actuator[i][lane];
    }
}
