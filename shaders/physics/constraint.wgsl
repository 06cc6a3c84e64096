// What constraints ask for: impedance, reference acceleration and regulariser of contacts and joint limits
// (mj_makeImpedance).
//
// A contact with friction μ has four rows n ± μt, pushing with D·max(0, aref − a) each. In the contact's own
// directions, row residuals are e_n ± μ e_t with e = J a − aref, so that a contact is kept as one normal and two
// tangents. Where motion is planar, the tangent across it has a zero Jacobian: two of the four rows are then the normal
// alone. Where there is no friction, all four are.
#define_import_path physics::constraint

#import physics::plan::{hold, plan, Softness, LIMITS, TEAM}
#import physics::team::{member, sync}
#import physics::workspace::{group, lane, workspaces, LimitRow}

// The impedance d at a penetration (or distance inside the margin), and the regulariser R = scale · (1 − d)/d.
struct Impedance {
    d: f32,
    regulariser: f32,
}

fn impedance(softness: Softness, depth: f32) -> Impedance {
    let x = min(depth * softness.inverse_width, 1.0);
    let rising = softness.rising * power(x, softness.power);
    let falling = 1.0 - softness.falling * power(1.0 - x, softness.power);
    let y = select(rising, falling, softness.midpoint < x);
    let between = softness.d_zero + y * (softness.d_max - softness.d_zero);
    let d = select(softness.d_max, between, x < 1.0);
    return Impedance(d, max(softness.regulariser * ((1.0 - d) / d), 1e-15));
}

fn power(x: f32, exponent: u32) -> f32 {
    var raised = x;
    for (var k = 1u; k < exponent; k++) {
        raised *= x;
    }
    return raised;
}

// Joint limits: which end of which range is violated, and how it pushes back.
fn limits() {
    let ws = &workspaces[group];
    for (var k = member + hold; k < LIMITS; k += TEAM) {
        let q = ws.qpos[plan.limits[k].qposadr][lane];
        let below = q - plan.limits[k].low;
        let above = plan.limits[k].high - q;
        let depth = min(below, above) - plan.limits[k].margin;
        ws.limit[k][lane] = LimitRow();
        if depth < 0.0 {
            let softness = plan.limits[k].softness;
            let sign = select(-1.0, 1.0, below < above);
            let made = impedance(softness, abs(depth));
            let velocity = sign * ws.qvel[plan.limits[k].dof][lane];
            let aref = -(softness.damping * velocity) - softness.stiffness * made.d * depth;
            ws.limit[k][lane] = LimitRow(sign, aref, 1.0 / made.regulariser);
        }
    }
    sync();
}
