//! One world: rapier's sets, made from a [`Layout`], and the conversions to and from them.

use super::layout::{Layout, to_pose, to_vector};
use crate::physics::backend::Contact;
use crate::physics::model::{Geom, GeomShape, Model};
use glam::{DQuat, DVec3, Vec3};
use rapier3d::dynamics::MultibodyIndex;
use rapier3d::parry::utils::Array2;
use rapier3d::prelude::*;

/// What every world of a batch shares.
pub struct Blueprint {
    pub layout: Layout,
    /// For every actuator: its joint's place among the layout's coordinates.
    pub motors: Vec<usize>,
    pub gravity: Vector,
    pub parameters: IntegrationParameters,
    /// Frictionless geoms, by index; their mutual contacts slide freely.
    pub hooks: Frictionless,
    /// A world at the reference configuration that has never been stepped: what every reset starts from.
    pub pristine: World,
}

/// Rapier's state of one world.
#[derive(Clone)]
pub struct World {
    islands: IslandManager,
    broad_phase: BroadPhaseBvh,
    narrow_phase: NarrowPhase,
    bodies: RigidBodySet,
    colliders: ColliderSet,
    impulse_joints: ImpulseJointSet,
    multibody_joints: MultibodyJointSet,
    soft_bodies: SoftBodySet,
    ccd: CCDSolver,
    /// None for a robot without joints.
    multibody: Option<MultibodyIndex>,
}

/// Takes the friction from contacts of two geoms that both have condim 1 (MuJoCo takes the larger condim of the two).
pub struct Frictionless {
    condim: Vec<u32>,
}

impl PhysicsHooks for Frictionless {
    fn modify_solver_contacts(&self, context: &mut ContactModificationContext) {
        let condim = |handle: ColliderHandle| self.condim[context.colliders[handle].user_data as usize];
        if condim(context.collider1).max(condim(context.collider2)) == 1
            && let Some(rigid) = context.rigid_mut()
        {
            *rigid.friction = 0.0;
        }
    }
}

impl Blueprint {
    /// # Errors
    /// The geom that rapier has no shape for.
    pub fn new(model: &Model) -> Result<Blueprint, String> {
        let layout = Layout::new(model);
        let parameters = IntegrationParameters {
            dt: model.timestep() as f32,
            num_solver_iterations: 1,
            // Two sweeps over the constraints instead of one cost a few per cent and keep feet from sinking into the
            // ground on hard landings.
            num_internal_pgs_iterations: 2,
            num_internal_stabilization_iterations: 2,
            max_ccd_substeps: 0,
            contact_clustering: false,
            contact_recycling: false,
            // Contacts are created before geoms touch, within the distance that a limb at 10 m/s covers in a step, so
            // that it does not end up in the ground.
            normalized_prediction_distance: (10.0 * model.timestep()).max(0.02) as f32,
            ..IntegrationParameters::default()
        };
        let pristine = World::new(model, &layout)?;
        let hooks = Frictionless { condim: model.geoms.iter().map(|geom| geom.condim).collect() };
        // A motor's joint is a hinge or a slide, so it has a coordinate.
        let place = |joint: usize| layout.coordinates.iter().position(|coordinate| coordinate.joint == joint);
        let motors = model.actuators.iter().filter_map(|actuator| place(actuator.joint)).collect();
        let gravity = to_vector(model.option.gravity);
        Ok(Blueprint { motors, layout, gravity, parameters, hooks, pristine })
    }
}

impl World {
    fn new(model: &Model, layout: &Layout) -> Result<World, String> {
        let mut world = World {
            islands: IslandManager::new(),
            broad_phase: BroadPhaseBvh::new(),
            narrow_phase: NarrowPhase::new(),
            bodies: RigidBodySet::new(),
            colliders: ColliderSet::new(),
            impulse_joints: ImpulseJointSet::new(),
            multibody_joints: MultibodyJointSet::new(),
            soft_bodies: SoftBodySet::new(),
            ccd: CCDSolver::new(),
            multibody: None,
        };
        // The root of every multibody is the ground, fixed, so that rapier's coordinates are the joints' and nothing
        // else.
        let ground = world.bodies.insert(RigidBodyBuilder::fixed());
        let mut handles = vec![];
        for link in &layout.links {
            let inertia = &link.inertia;
            let properties = MassProperties::with_principal_inertia_frame(
                to_vector(inertia.pos),
                inertia.mass as f32,
                to_vector(inertia.moments),
                inertia.quat.as_quat(),
            );
            let body = RigidBodyBuilder::dynamic().additional_mass_properties(properties).can_sleep(false);
            handles.push(world.bodies.insert(body));
        }
        for (geom_index, geom) in model.geoms.iter().enumerate() {
            if geom.contype == 0 && geom.conaffinity == 0 {
                continue;
            }
            let (link, pos, quat) = layout.carriers[geom.body];
            let collider = collider(model, geom, geom_index, pos + quat * geom.pos, quat * geom.quat)?;
            match link {
                Some(link) => world.colliders.insert_with_parent(collider, handles[link], &mut world.bodies),
                None => world.colliders.insert(collider),
            };
        }
        for (link, handle) in layout.links.iter().zip(&handles) {
            let parent = link.parent.map_or(ground, |parent| handles[parent]);
            // It is refused only if a link would get a second parent, which cannot happen in a tree.
            world.multibody_joints.insert(parent, *handle, link.joint, true);
        }
        for handle in &handles {
            let body = &mut world.bodies[*handle];
            body.recompute_mass_properties_from_colliders(&world.colliders);
        }
        world.multibody = world.multibody_joints.rigid_body_link(ground).map(|link| link.multibody);
        if let Some(multibody) = world.multibody.and_then(|id| world.multibody_joints.get_multibody_mut(id)) {
            // From here on the ground is known to be fixed; until then rapier counts six degrees of freedom for it.
            multibody.forward_kinematics(&world.bodies, false);
            // Removes rapier's own default damping first.
            multibody.damping_mut().fill(0.0);
            for coordinate in &layout.coordinates {
                let joint = &model.joints[coordinate.joint];
                multibody.damping_mut()[coordinate.dof] = joint.damping as f32;
                multibody.armature_mut()[coordinate.dof] = joint.armature as f32;
                multibody.frictions_mut()[coordinate.dof] = joint.frictionloss as f32;
            }
            for free in &layout.frees {
                let joint = &model.joints[free.joint];
                for dof in free.dof..free.dof + 6 {
                    multibody.damping_mut()[dof] = joint.damping as f32;
                    multibody.armature_mut()[dof] = joint.armature as f32;
                    multibody.frictions_mut()[dof] = joint.frictionloss as f32;
                }
            }
        }
        Ok(world)
    }

    fn multibody_mut(&mut self) -> Option<&mut Multibody> {
        self.multibody_joints.get_multibody_mut(self.multibody?)
    }

    fn multibody(&self) -> Option<&Multibody> {
        self.multibody_joints.get_multibody(self.multibody?)
    }

    /// Puts a pristine world into a state.
    pub fn place(&mut self, blueprint: &Blueprint, model: &Model, qpos: &[f64], qvel: &[f64]) {
        let Some(id) = self.multibody else { return };
        let Some(multibody) = self.multibody_joints.get_multibody_mut(id) else { return };
        let mut displacement = vec![0.0_f32; multibody.ndofs().max(6)];
        for coordinate in &blueprint.layout.coordinates {
            let joint = &model.joints[coordinate.joint];
            displacement[coordinate.dof] = (coordinate.sign * (qpos[joint.qposadr] - joint.reference)) as f32;
            multibody.generalized_velocity_mut()[coordinate.dof] = (coordinate.sign * qvel[joint.dofadr]) as f32;
        }
        for free in &blueprint.layout.frees {
            let joint = &model.joints[free.joint];
            let q = &qpos[joint.qposadr..];
            let quat = crate::physics::model::unit_quat(&q[3..7]);
            let turn = quat.to_scaled_axis();
            let v = DVec3::from_slice(&qvel[joint.dofadr..]);
            // MuJoCo's angular velocity is in the body's frame, rapier's in the world's.
            let w = quat * DVec3::from_slice(&qvel[joint.dofadr + 3..]);
            for i in 0..3 {
                displacement[free.dof + i] = q[i] as f32;
                displacement[free.dof + 3 + i] = turn[i] as f32;
                multibody.generalized_velocity_mut()[free.dof + i] = v[i] as f32;
                multibody.generalized_velocity_mut()[free.dof + 3 + i] = w[i] as f32;
            }
        }
        multibody.apply_displacements(&displacement);
        multibody.forward_kinematics(&self.bodies, false);
        multibody.update_rigid_bodies(&mut self.bodies, true);
    }

    /// Sets the generalised force on every hinge and slide, in the order of [`Layout::coordinates`].
    ///
    /// Rapier accepts forces on bodies but not on coordinates, and torques on bodies would have to be rotated with them
    /// at every step. Its joint springs, −k (q − rest), are forces on coordinates, so a spring's rest position can
    /// express a force. An existing spring's rest position is shifted by force / k. Otherwise a spring too soft to
    /// matter is stretched very far.
    pub fn push(&mut self, blueprint: &Blueprint, model: &Model, forces: &[f64]) {
        /// N/m or N m/rad. It pulls back by a millionth of the displacement, and adds 1e-6 dt² to the inertia.
        const SOFT: f64 = 1e-6;
        let Some(multibody) = self.multibody_mut() else { return };
        for (coordinate, force) in blueprint.layout.coordinates.iter().zip(forces) {
            let joint = &model.joints[coordinate.joint];
            let (stiffness, rest) = match joint.stiffness {
                0.0 if *force == 0.0 => (0.0, 0.0),
                0.0 => (SOFT, 0.0),
                stiffness => (stiffness, coordinate.sign * (joint.springref - joint.reference)),
            };
            let stretched = if *force == 0.0 { rest } else { rest + coordinate.sign * force / stiffness };
            // Link 0 of the multibody is the ground.
            if let Some(link) = multibody.link_mut(coordinate.link + 1) {
                link.joint.set_spring(coordinate.axis, stiffness as f32, stretched as f32);
            }
        }
    }

    /// One timestep.
    pub fn step(&mut self, pipeline: &mut PhysicsPipeline, blueprint: &Blueprint) {
        pipeline.step(
            blueprint.gravity,
            &blueprint.parameters,
            &mut self.islands,
            &mut self.broad_phase,
            &mut self.narrow_phase,
            &mut self.bodies,
            &mut self.colliders,
            &mut self.impulse_joints,
            &mut self.multibody_joints,
            &mut self.soft_bodies,
            &mut self.ccd,
            &blueprint.hooks,
            &(),
        );
    }

    /// Reads the state in MuJoCo's coordinates.
    pub fn read(&self, blueprint: &Blueprint, model: &Model, qpos: &mut [f64], qvel: &mut [f64]) {
        let Some(multibody) = self.multibody() else { return };
        let velocity = multibody.generalized_velocity();
        for coordinate in &blueprint.layout.coordinates {
            let joint = &model.joints[coordinate.joint];
            let Some(link) = multibody.link(coordinate.link + 1) else { continue };
            let q = f64::from(link.joint.coords()[coordinate.axis]);
            qpos[joint.qposadr] = coordinate.sign * q + joint.reference;
            qvel[joint.dofadr] = coordinate.sign * f64::from(velocity[coordinate.dof]);
        }
        for free in &blueprint.layout.frees {
            let joint = &model.joints[free.joint];
            let Some(link) = multibody.link(free.link + 1) else { continue };
            let pose = link.local_to_world();
            let quat: DQuat = pose.rotation.as_dquat().normalize();
            let v = |at: usize| DVec3::new(velocity[at].into(), velocity[at + 1].into(), velocity[at + 2].into());
            let (linear, angular) = (v(free.dof), quat.inverse() * v(free.dof + 3));
            let position = pose.translation.as_dvec3();
            qpos[joint.qposadr..joint.qposadr + 3].copy_from_slice(&position.to_array());
            qpos[joint.qposadr + 3..joint.qposadr + 7].copy_from_slice(&[quat.w, quat.x, quat.y, quat.z]);
            qvel[joint.dofadr..joint.dofadr + 3].copy_from_slice(&linear.to_array());
            qvel[joint.dofadr + 3..joint.dofadr + 6].copy_from_slice(&angular.to_array());
        }
    }

    /// Calls `each` with every contact point of the last step: the two geoms, the contact (normal from the first to the
    /// second), and the force on the second in newtons.
    pub fn contacts(&self, blueprint: &Blueprint, mut each: impl FnMut([usize; 2], Contact, DVec3)) {
        let inverse_dt = 1.0 / f64::from(blueprint.parameters.dt);
        for pair in self.narrow_phase.contact_pairs() {
            let (collider1, collider2) = (&self.colliders[pair.collider1], &self.colliders[pair.collider2]);
            let geoms = [collider1.user_data as usize, collider2.user_data as usize];
            for manifold in pair.solver_manifolds() {
                let normal: Vec3 = manifold.data.normal;
                for point in &manifold.points {
                    let p1: Vec3 = collider1.position() * point.local_p1;
                    let p2: Vec3 = collider2.position() * point.local_p2;
                    let contact = Contact {
                        bodies: [0, 0],
                        position: ((p1 + p2) / 2.0).as_dvec3().to_array(),
                        normal: normal.as_dvec3().to_array(),
                        distance: point.dist.into(),
                    };
                    // Rapier's impulses act on the first body. The friction impulse is only stored as a vector for warm
                    // starts; with one solver iteration per step the two are the same.
                    let impulse = normal * point.data.impulse - point.data.warmstart_tangent_world;
                    each(geoms, contact, impulse.as_dvec3() * inverse_dt);
                }
            }
        }
    }
}

fn collider(model: &Model, geom: &Geom, index: usize, pos: DVec3, quat: DQuat) -> Result<ColliderBuilder, String> {
    let shape = match geom.shape {
        GeomShape::Plane => ColliderBuilder::new(SharedShape::halfspace(Vec3::Z)),
        GeomShape::Sphere { radius } => ColliderBuilder::ball(radius as f32),
        GeomShape::Capsule { radius, half_length } => ColliderBuilder::capsule_z(half_length as f32, radius as f32),
        GeomShape::Cylinder { radius, half_length } => ColliderBuilder::cylinder(half_length as f32, radius as f32),
        GeomShape::Box { half_extents } => {
            let half = half_extents.as_vec3();
            ColliderBuilder::cuboid(half.x, half.y, half.z)
        }
        GeomShape::Mesh { mesh } => {
            let mesh = &model.meshes[mesh];
            let corners: Vec<Vec3> = mesh.hull.iter().map(|at| mesh.vertices[*at as usize].as_vec3()).collect();
            ColliderBuilder::convex_hull(&corners)
                .ok_or_else(|| format!("the convex hull of the mesh \"{}\" is too thin for it", mesh.name))?
        }
        GeomShape::HeightField { hfield } => {
            let field = &model.hfields[hfield];
            let [half_x, half_y, _, _] = field.size;
            // Its rows run against our y, because its y points up and its z towards smaller y. The memory is
            // column-major.
            let rows = || (0..field.rows).rev();
            let heights = (0..field.columns).flat_map(|c| rows().map(move |r| field.point(r, c).z as f32)).collect();
            ColliderBuilder::heightfield_with_flags(
                Array2::new(field.rows, field.columns, heights),
                Vec3::new(2.0 * half_x as f32, 1.0, 2.0 * half_y as f32),
                // Otherwise bodies that slide over the ground get caught on the edges between triangles.
                HeightFieldFlags::FIX_INTERNAL_EDGES,
            )
        }
    };
    // Rapier's cylinder and height field stand along y, MuJoCo's along z.
    let turn = match geom.shape {
        GeomShape::Cylinder { .. } | GeomShape::HeightField { .. } => {
            DQuat::from_rotation_x(std::f64::consts::FRAC_PI_2)
        }
        _ => DQuat::IDENTITY,
    };
    let groups = InteractionGroups::new(geom.contype.into(), geom.conaffinity.into(), InteractionTestMode::Or);
    let hooks = if geom.condim == 1 { ActiveHooks::MODIFY_SOLVER_CONTACTS } else { ActiveHooks::empty() };
    Ok(shape
        .position(to_pose(pos, quat * turn))
        .density(0.0)
        .collision_groups(groups)
        .friction(geom.friction[0] as f32)
        .friction_combine_rule(CoefficientCombineRule::Max)
        .active_hooks(hooks)
        .user_data(index as u128))
}
