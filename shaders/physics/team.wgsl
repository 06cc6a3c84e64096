// How the threads of a workgroup share the worlds that it steps: a world each, or, as a team, one world together.
//
// A loop over independent items begins at `member` and goes on by `TEAM`. Before a member reads what another one wrote, all of them meet in
// `sync`. That must happen where no member can miss it, by WGSL's rules for uniform control flow: a loop that members meet in begins at `zero()`, and a
// condition around it comes from the model, from what the dispatch was told, or from `same`. naga holds nobody to these rules, but other compilers
// of WGSL do. Where a thread is the only member of its team, none of this costs anything.
#define_import_path physics::team

#import physics::plan::{hold, plan, TEAM}

#ifdef IS_TEAM
// Which member this thread is.
var<private> member: u32;

// What each member adds to a sum, and what the first one says.
var<workgroup> parts: array<vec4f, TEAM>;
var<workgroup> said: u32;
#else
const member: u32 = 0u;
#endif

// Where loops begin in which members meet: `hold`, from where it is the same for all of them beyond doubt.
fn zero() -> u32 {
#ifdef IS_TEAM
    return plan.zero;
#else
    return hold;
#endif
}

// What every member wrote before, each can read after.
fn sync() {
#ifdef IS_TEAM
    workgroupBarrier();
#endif
}

// The sum of what the members give, added up in the same order by each.
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

// What the first member says.
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

// Whether x is true for one of the members.
fn any_of(x: bool) -> bool {
#ifdef IS_TEAM
    return same(select(0u, 1u, total(vec4f(select(0.0, 1.0, x), 0.0, 0.0, 0.0)).x > 0.0)) != 0u;
#else
    return x;
#endif
}

// Where what this member adds to a list comes, in the order of the members, and how long the list then is.
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
