//! What every physics backend can do. The layers above use only this trait, so a new backend needs no change there.

use super::Model;
use super::host::HostState;
use flipside_core::Pose;
#[cfg(feature = "gpu")]
use flipside_gpu::DeviceError;

/// One touching point, world frame.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Contact {
    /// Bodies of the two geoms (0 is the world).
    pub bodies: [usize; 2],
    /// Metres.
    pub position: [f64; 3],
    /// Unit normal, from the first body to the second.
    pub normal: [f64; 3],
    /// Signed distance in metres: negative where the geoms overlap.
    pub distance: f64,
}

/// A quantity that follows from a state and the forces on it, by MuJoCo's name.
///
/// An observation reads it after a step. If the model integrates by RK4 it is of the fourth stage's evaluation; with
/// Euler it is of the start of the last timestep (`mjData` after `mj_step`). After [`Backend::set_state`] it is that
/// state's, with no control (`mj_forward`), and [`Quantity::CfrcExt`] is zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quantity {
    /// `[nbody, 7]`: where each body is, `xpos` in metres, then how it is turned, `xquat` (w x y z).
    Frames,
    /// `[nbody, 10]`: each body's inertia about its tree's centre of mass: six entries of the symmetric matrix (xx yy
    /// zz xy xz yz, kg m²), mass times offset (kg m), mass.
    Cinert,
    /// `[nbody, 6]`: each body's angular (rad/s), then linear velocity (m/s) of the point at its tree's centre of mass.
    Cvel,
    /// `[nbody, 6]`: torque (N m), then force (N), that contacts exert on each body, about its tree's centre of mass.
    CfrcExt,
    /// `[nv]`: the actuators' force on each degree of freedom, N or N m.
    QfrcActuator,
    /// `[nv]`: the limits' and contacts' force on each degree of freedom, N or N m.
    QfrcConstraint,
}

impl Quantity {
    /// All of them.
    pub const ALL: [Quantity; 6] = [
        Quantity::Frames,
        Quantity::Cinert,
        Quantity::Cvel,
        Quantity::CfrcExt,
        Quantity::QfrcActuator,
        Quantity::QfrcConstraint,
    ];

    /// How many numbers it has for one world of this model. It is never zero for a robot, because a quantity of the
    /// bodies also has the world's row.
    pub fn len(self, model: &Model) -> usize {
        match self {
            Quantity::Frames => 7 * model.nbody(),
            Quantity::Cinert => 10 * model.nbody(),
            Quantity::Cvel | Quantity::CfrcExt => 6 * model.nbody(),
            Quantity::QfrcActuator | Quantity::QfrcConstraint => model.nv(),
        }
    }

    /// MuJoCo's name for it, as task files have it.
    pub fn name(self) -> &'static str {
        match self {
            Quantity::Frames => "frames",
            Quantity::Cinert => "cinert",
            Quantity::Cvel => "cvel",
            Quantity::CfrcExt => "cfrc_ext",
            Quantity::QfrcActuator => "qfrc_actuator",
            Quantity::QfrcConstraint => "qfrc_constraint",
        }
    }
}

/// A batch of worlds of one model. Each world is independent of the others bit for bit, whatever the batch size and
/// thread count.
///
/// Sizes are MuJoCo's: `nq` positions, `nv` velocities, `nu` controls, `nbody` bodies with the world as body 0. A free
/// joint takes seven positions (x y z, then a quaternion w x y z) and six velocities (linear in the world frame,
/// angular in the body's frame).
pub trait Backend: Send {
    /// The name that `--backend` takes.
    fn name(&self) -> &'static str;

    /// The graphics adapter that it computes on, to be printed beside measurements; `None` if the CPU computes.
    fn adapter(&self) -> Option<&str> {
        None
    }

    /// The worlds' states on the host, and the status of each.
    fn host(&self) -> &HostState;

    /// The model that every world is a copy of.
    fn model(&self) -> &Model {
        self.host().model()
    }

    /// How many worlds.
    fn worlds(&self) -> usize {
        self.host().worlds()
    }

    /// Puts one world into a state and forgets contacts, warm starts and the rest of its past. `qpos` is `[nq]`, `qvel`
    /// `[nv]`.
    fn set_state(&mut self, world: usize, qpos: &[f64], qvel: &[f64]);

    /// Joint positions of all worlds, `[worlds, nq]`, metres and radians.
    fn qpos(&self) -> &[f64] {
        self.host().qpos()
    }

    /// Joint velocities of all worlds, `[worlds, nv]`.
    fn qvel(&self) -> &[f64] {
        self.host().qvel()
    }

    /// Holds `ctrl`, `[worlds, nu]`, for `frame_skip` timesteps of the model. Controls are clipped to the actuators'
    /// ranges.
    ///
    /// # Errors
    /// `PhysicsError::Device` where a graphics device gives up; the worlds stay where the last whole step left them.
    fn step(&mut self, ctrl: &[f64], frame_skip: usize) -> Result<(), PhysicsError>;

    /// Where each body of one world is, `[nbody]`.
    fn body_poses(&self, world: usize, out: &mut [Pose]) {
        self.model().poses(self.host().state(world).0, out);
    }

    /// The points where geoms touch or overlap, as found by the last step; none after [`Backend::set_state`]. `out` is
    /// cleared first.
    fn contacts(&self, world: usize, out: &mut Vec<Contact>);

    /// Announces which quantities [`Backend::derived`] will be asked for from the next [`Backend::set_state`] or
    /// [`Backend::step`] on, so that no others need to be computed. [`Quantity::Frames`] may always be asked for.
    ///
    /// # Errors
    /// [`PhysicsError::NotSupplied`] for the first one that the backend does not compute. Nothing changes then.
    fn need(&mut self, quantities: &[Quantity]) -> Result<(), PhysicsError>;

    /// Writes a quantity of one world into `out`, [`Quantity::len`] numbers, world frame. If it was not announced with
    /// [`Backend::need`], it may be out of date.
    fn derived(&self, world: usize, quantity: Quantity, out: &mut [f64]);

    /// Whether a world's state became non-finite. The world keeps the state before that step until
    /// [`Backend::set_state`].
    fn frozen(&self, world: usize) -> bool {
        self.host().outcome(world).frozen()
    }

    /// How many times a world became non-finite and was frozen since the batch was made.
    fn diverged(&self) -> u64 {
        self.host().diverged()
    }

    /// How far the accelerations of the present states, under the controls of the last step, are from the optimum of
    /// the constraint problem: ‖M a − f − Jᵀλ(a)‖ over 1 + ‖f‖ in double precision, the worst of the first 64 worlds.
    /// `None` if the engine solves another problem.
    fn solver_residual(&self) -> Option<f64> {
        None
    }
}

/// What can go wrong when a batch is made.
#[derive(Debug, thiserror::Error)]
pub enum PhysicsError {
    /// No backend has this name.
    #[error("no physics backend is called \"{name}\"; there {}", listed(.known))]
    UnknownBackend {
        /// What was asked for.
        name: String,
        /// The names that there are.
        known: &'static [&'static str],
    },
    /// The backend cannot hold this robot.
    #[error("the {backend} backend cannot simulate \"{model}\": {reason}")]
    Unsupported {
        /// The backend's name.
        backend: &'static str,
        /// The robot's name.
        model: String,
        /// What it cannot do.
        reason: String,
    },
    /// The backend does not compute something that is asked of it.
    #[error("the {backend} backend does not compute {quantity}: use the backend lanes, which does")]
    NotSupplied {
        /// The backend's name.
        backend: &'static str,
        /// [`Quantity::name`] of what it does not compute.
        quantity: &'static str,
    },
    /// A graphics device is missing, or failed.
    #[cfg(feature = "gpu")]
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// Threads could not be started.
    #[error("the physics threads could not be started: {0}")]
    Threads(#[from] rayon::ThreadPoolBuildError),
}

fn listed(known: &[&str]) -> String {
    match known {
        [one] => format!("is one: {one}"),
        many => format!("are: {}", many.join(", ")),
    }
}
