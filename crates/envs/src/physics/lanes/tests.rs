//! Every kind of lanes against double precision.

use super::*;
use flipside_core::Seed;
use rand::RngExt;

fn hopper() -> Arc<Model> {
    let text = include_str!("../../../../../envs/hopper.xml");
    Arc::new(Model::from_mjcf(text, "hopper.xml").unwrap())
}

/// The states of 21 worlds after half a second of the same controls.
fn run<L: Lane>() -> Vec<f64> {
    let model = hopper();
    let mut lanes = Lanes::<L>::new(model.clone(), 21, Some(2)).unwrap();
    let mut stream = Seed(3).stream("controls");
    for _ in 0..60 {
        let ctrl: Vec<f64> = (0..21 * model.nu()).map(|_| stream.random_range(-1.0..1.0)).collect();
        lanes.step(&ctrl, 4).unwrap();
    }
    assert_eq!(lanes.diverged(), 0);
    [lanes.qpos(), lanes.qvel()].concat()
}

#[test]
fn every_instruction_set_agrees_with_double_precision() {
    let exact = run::<f64>();
    let check = |name: &str, found: Vec<f64>| {
        let mut errors: Vec<f64> = found.iter().zip(&exact).map(|(x, y)| (x - y).abs() / (1.0 + y.abs())).collect();
        errors.sort_by(f64::total_cmp);
        // 240 timesteps amplify rounding; where a foot slips the two may part, in few of the numbers.
        assert!(errors[errors.len() * 9 / 10] < 2e-3, "{name}: {:e}", errors[errors.len() * 9 / 10]);
        assert!(errors[errors.len() / 2] > 1e-9, "{name} is double precision itself");
    };
    check("array", run::<simd::Array8>());
    #[cfg(target_arch = "x86_64")]
    {
        if simd::best() != Instructions::Portable {
            check("AVX2", run::<simd::F32x8>());
        }
        if simd::best() == Instructions::Avx512 {
            check("AVX-512", run::<simd::F32x16>());
        }
    }
}

#[test]
fn sines_and_cosines_are_right_to_single_precision() {
    let mut worst = 0.0_f64;
    for i in -40_000..40_000_i32 {
        let x = f64::from((f64::from(i) * 0.0025) as f32);
        let (sin, cos) = simd::Array8::of(x).sin_cos();
        worst = worst.max((sin.get(3) - x.sin()).abs()).max((cos.get(5) - x.cos()).abs());
    }
    assert!(worst < 1.2e-7, "{worst:e}");
}
