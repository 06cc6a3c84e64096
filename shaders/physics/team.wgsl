// How the threads of a workgroup share the worlds that it steps: one world per thread, or one world for the whole team.
//
// A loop over independent items starts at `member` and advances by `TEAM`. Before a member reads what another one
// wrote, all members meet in `sync`. WGSL's rules for uniform control flow require that every member reaches it. A loop
// that contains a `sync` therefore starts at `zero()`, and a condition around it comes from the model, from the
// parameters of the dispatch, or from `same`. naga does not enforce these rules, but other WGSL compilers do. If a
// thread is the only member of its team, none of this costs anything.
#define_import_path physics::team

#import physics::plan::{hold, plan, TEAM}

#ifdef IS_TEAM
// Which member this thread is.
var<private> member: u32;

// What each member adds to a sum, and the value that the first member shares.
var<workgroup> parts: array<vec4f, TEAM>;
var<workgroup> said: u32;
#else
const member: u32 = 0u;
#endif

// The start of loops in which members meet: as `hold`, but from a place that is certainly the same for all of them.
fn zero() -> u32 {
#ifdef IS_TEAM
    return plan.zero;
#else
    return hold;
#endif
}

// After this, every member can read what the others wrote before it.
fn sync() {
#ifdef IS_TEAM
    workgroupBarrier();
#endif
}

// The sum of the members' contributions. Each member adds them in the same order.
fn total(part: vec4f) -> vec4f {
#ifdef IS_TEAM
    parts[member] = part;
    workgroupBarrier();
    var sum = parts[0];
    for (var i = 1u + hold; i < TEAM; i++) {
        sum += parts[i];
    }
    workgroupBarrier();
    return sum;
#else
    return part;
#endif
}

// The first member's value.
fn same(x: u32) -> u32 {
#ifdef IS_TEAM
    if member == 0u {
        said = x;
    }
    return workgroupUniformLoad(&said);
#else
    return x;
#endif
}

// Whether x is true for at least one member.
fn any_of(x: bool) -> bool {
#ifdef IS_TEAM
    return same(select(0u, 1u, total(vec4f(select(0.0, 1.0, x), 0.0, 0.0, 0.0)).x > 0.0)) != 0u;
#else
    return x;
#endif
}

// The position of this member's additions to a list, in order of the members, and the resulting length of the list.
fn ranked(from_here: u32, items: u32) -> vec2u {
#ifdef IS_TEAM
    parts[member].x = f32(items);
    workgroupBarrier();
    var before = 0.0;
    var all = 0.0;
    for (var i = hold; i < TEAM; i++) {
        let part = parts[i].x;
        before += select(0.0, part, i < member);
        all += part;
    }
    workgroupBarrier();
    return from_here + vec2u(u32(before), u32(all));
#else
    return from_here + vec2u(0u, items);
#endif
}
