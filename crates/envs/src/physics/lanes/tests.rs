//! Every kind of lanes against double precision.

use super::*;
use flipside_core::Seed;
use rand::RngExt;

const HOPPER: &str = include_str!("../../../../../envs/hopper.xml");
const ANT: &str = include_str!("../../../../../envs/ant.xml");

/// The states of 21 worlds after 60 env steps of the same controls.
fn run<L: Lanes>(robot: &str) -> Vec<f64> {
    let model = Arc::new(Model::from_mjcf(robot, "robot.xml").unwrap());
    let mut lanes = LanesBackend::<L>::new(model.clone(), 21, Some(2)).unwrap();
    let mut stream = Seed(3).stream("controls");
    for _ in 0..60 {
        let ctrl: Vec<f64> = (0..21 * model.nu()).map(|_| stream.random_range(-1.0..1.0)).collect();
        lanes.step(&ctrl, 4).unwrap();
    }
    assert_eq!(lanes.diverged(), 0);
    [lanes.qpos(), lanes.qvel()].concat()
}

#[test]
fn instruction_sets_agree_with_double_precision() {
    let exact = run::<f64>(HOPPER);
    let check = |name: &str, found: Vec<f64>| {
        let mut errors: Vec<f64> = found.iter().zip(&exact).map(|(x, y)| (x - y).abs() / (1.0 + y.abs())).collect();
        errors.sort_by(f64::total_cmp);
        // 240 timesteps amplify rounding; where a foot slips the two may part, in few of the numbers.
        assert!(errors[errors.len() * 9 / 10] < 2e-3, "{name}: {:e}", errors[errors.len() * 9 / 10]);
        assert!(errors[errors.len() / 2] > 1e-9, "{name} is double precision itself");
    };
    check("array", run::<simd::F32x4>(HOPPER));
    #[cfg(target_arch = "x86_64")]
    {
        if Instructions::Avx2.available() {
            check("AVX2", run::<simd::F32x8>(HOPPER));
        }
        if Instructions::Avx512.available() {
            check("AVX-512", run::<simd::F32x16>(HOPPER));
        }
    }
}

/// Both fuse the same operations, and no world sees its neighbours.
#[cfg(target_arch = "x86_64")]
#[test]
fn avx2_and_avx512_give_the_same_bits() {
    if !Instructions::Avx512.available() {
        return;
    }
    for robot in [HOPPER, ANT] {
        let [narrow, wide] = [run::<simd::F32x8>(robot), run::<simd::F32x16>(robot)];
        assert!(narrow.iter().zip(&wide).all(|(a, b)| a.to_bits() == b.to_bits()));
    }
}
